"""Models of somebody's own that go wrong in each way there is, beside one that does not."""

from collections.abc import Iterator

import pytest

from crossmodal.jobs.record import ModelState, Progress
from producer import Client, ModelBroken
from tests.conftest import settings_of, stack_environment
from tests.servers import start_server
from tests.waiting import until
from tests.workers import real_worker

pytestmark = pytest.mark.slow
WAIT_S = 120.0
NAMES = ("good", "dies", "hangs", "nan", "greedy", "unready")
MODEL = """
import os, threading, time

import numpy as np

from crossmodal.models.contract import Batch, Model


class Own(Model):
    kind = "txt2img"
    max_batch = 4

    def load(self, folder, device):
        self.name = folder.name
        if self.name == "unready":
            raise OSError("its weights are on another machine")

    def run(self, batch: Batch):
        for step in range(1, 5):
            time.sleep(0.05)  # in place of a large model's computing
            batch.step(step, 4)
            if step == 3 and any("poison" in r.params.prompt for r in batch):
                self.suffer()
        return [self.draw(request) for request in batch]

    def suffer(self):
        if self.name == "dies":
            os._exit(1)
        if self.name == "hangs":
            threading.Event().wait()
        if self.name == "greedy":
            raise MemoryError("8 TB are wanted")

    def draw(self, request):
        is_nan = self.name == "nan" and "poison" in request.params.prompt
        return np.full((8, 8, 3), np.nan if is_nan else request.seed % 255 / 255)
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("poison")
    for name in NAMES:
        (folder / "models" / name).mkdir(parents=True)
        (folder / "models" / name / "model.py").write_text(MODEL)
    (folder / "models" / "pickle").mkdir()
    (folder / "models" / "pickle" / "config.json").write_text("{}")
    (folder / "models" / "pickle" / "pytorch_model.bin").write_bytes(b"x")
    server = start_server(folder / "valkey")
    env = stack_environment(server.port, folder) | {
        "CROSSMODAL_MODELS": str(folder / "models"),
        "CROSSMODAL_DEVICE_MEMORY": str(2**40),
        "CROSSMODAL_ALLOW_MODEL_CODE": ",".join(NAMES),
        "CROSSMODAL_INFERENCE_TIMEOUT_S": "3",
        "CROSSMODAL_MAX_ATTEMPTS": "2",
    }
    with real_worker(env, folder / "worker", 8), Client(settings_of(env)) as client:
        until(
            lambda: all(
                client.models(max_age_s=0).state(n) in (ModelState.LOADED, ModelState.BROKEN)
                for n in NAMES
            ),
            WAIT_S,
            "the loading of all that can be",
        )
        yield client
    server.stop()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("dies", "model_host_crashed"),
        ("hangs", "model_host_crashed"),
        ("nan", "inference_failed"),
        ("greedy", "gpu_out_of_memory"),
    ],
)
def test_poison_harms_its_own_job_alone(client: Client, name: str, code: str) -> None:
    good = [client.txt2img("x", model="good", seed=i) for i in range(6)]
    jobs = [client.txt2img(p, model=name, seed=9) for p in ("a", "poison", "b", "c")]
    for job in (*jobs, *good):
        job.wait(WAIT_S)
    failure = client.record(jobs[1]).failure
    assert failure is not None
    assert failure.code == code
    assert [client.record(job).state for job in jobs] == ["succeeded", "failed", *["succeeded"] * 2]
    assert {client.record(job).attempt for job in good} == {1}


def test_steps_of_an_attempt_that_died_begin_again_in_the_next(client: Client) -> None:
    job = client.txt2img("poison", model="dies", seed=1)
    told = list(job.events())
    states = [(one.state, one.attempt) for one in told if not isinstance(one, Progress)]
    assert states[:4] == [("queued", 0), ("running", 1), ("queued", 1), ("running", 2)]
    assert job.status().state == "failed"


def test_a_model_that_cannot_be_loaded_says_why(client: Client) -> None:
    assert client.models(max_age_s=0).state("unready") is ModelState.BROKEN
    with pytest.raises(ModelBroken, match="its weights are on another machine"):
        client.txt2img("x", model="unready")


def test_a_folder_of_pickles_is_no_model_at_all(client: Client) -> None:
    assert "pickle" not in client.models(max_age_s=0)
