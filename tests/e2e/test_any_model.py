"""Models that others made, in a folder, served by a worker as those that ship."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossmodal.jobs.record import Progress
from producer import Client, InvalidParams
from tests.commands import run_command
from tests.conftest import settings_of, stack_environment
from tests.servers import start_server
from tests.tiny import captioners, pipelines
from tests.waiting import until
from tests.workers import real_worker

WAIT_S = 60.0
STRIPES = """
import time

import numpy as np

from crossmodal.models.contract import Batch, Model


class Stripes(Model):
    kind = "txt2img"
    max_batch = 4

    def load(self, folder, device):
        self.palette = np.random.default_rng(0).integers(0, 256, (64, 3))

    def run(self, batch: Batch):
        for step in range(1, 9):
            time.sleep(0.5)  # in place of a large model's computing
            batch.step(step, 8)
        return [self.draw(request.params.prompt, request.seed) for request in batch]

    def draw(self, prompt, seed):
        picture = np.full((64, 64, 3), 255, np.uint8)
        picture[:: len(prompt)] = self.palette[seed % 64]
        return picture
"""


@contextmanager
def serving(folder: Path, tmp_path: Path) -> Iterator[Client]:
    """A client of a worker that serves the models of a folder."""
    server = start_server(tmp_path / "valkey")
    env = stack_environment(server.port, tmp_path) | {
        "CROSSMODAL_BUNDLE": str(folder),
        "CROSSMODAL_ALLOW_MODEL_CODE": "stripes",
    }
    try:
        with real_worker(env, tmp_path / "worker", 8), Client(settings_of(env)) as client:
            yield client
    finally:
        server.stop()


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_a_folder_of_diffusers_is_served(tmp_path: Path, name: str) -> None:
    folder = pipelines.make(name, tmp_path / name)
    (folder / "crossmodal.toml").write_text("[defaults]\nsteps = 6\nwidth = 32\nheight = 32\n")
    with serving(folder, tmp_path) as client:
        [worker] = client.workers()
        own = {f"txt2img{model}{lane}" for model in ("", f".{name}") for lane in ("", ".bulk")}
        assert set(worker.queues) == own
        drawn = client.txt2img("a red circle", seed=7, count=2).result(timeout_s=WAIT_S)
        assert (drawn.model, len(drawn.images), drawn.images[0].width) == (name, 2, 32)
        again = client.txt2img("a red circle", seed=8).result(timeout_s=WAIT_S)
        assert client.read(again.images[0])[-200:] == client.read(drawn.images[1])[-200:]
        many = list(client.map_txt2img(["a blue star", "a cat"] * 4, seed=1))
        assert [len(item.images) for item in many] == [1] * 8
        assert (drawn.params["steps"], drawn.repeatable) == (6, "exact")
        few = client.txt2img("a red circle", steps=2, width=64).result(timeout_s=WAIT_S)
        assert (few.params["steps"], few.images[0].width) == (2, 64)
        with pytest.raises(InvalidParams, match="temperature: Input should be greater"):
            client.txt2img("a", temperature=0.5)
        with pytest.raises(InvalidParams, match="unknown field 'stepz': did you mean 'steps'"):
            client.txt2img("a", stepz=2)
        long = client.txt2img("a red circle " * 300).result(timeout_s=WAIT_S)
        assert "of which the model reads" in long.warnings[0]


def test_a_folder_of_transformers_is_served(tmp_path: Path) -> None:
    with serving(captioners.make("git", tmp_path / "git"), tmp_path) as client:
        picture = np.random.default_rng(0).integers(0, 256, (300, 500, 3)).astype(np.uint8)
        found = client.img2txt(picture, count=2, max_words=6).result(timeout_s=WAIT_S)
        assert (found.model, len(found.captions)) == ("git", 2)
        assert all(caption.log_probability < 0 for caption in found.captions)
        [alone] = client.map_img2txt([picture], count=2, max_words=6)
        assert [c.text for c in alone.captions] == [c.text for c in found.captions]


@pytest.fixture
def stripes(tmp_path: Path) -> Iterator[Client]:
    folder = tmp_path / "stripes"
    folder.mkdir()
    (folder / "model.py").write_text(STRIPES)
    with serving(folder, tmp_path) as client:
        yield client


def test_a_class_of_ones_own_is_served_with_its_steps(stripes: Client) -> None:
    job = stripes.txt2img("a red circle", seed=3)
    steps = [event.step for event in job.events() if isinstance(event, Progress)]
    assert (steps == sorted(set(steps)), len(steps) >= 6, steps[-1]) == (True, True, 8)
    assert job.result().images[0].height == 64
    slow = [stripes.txt2img("a red circle", seed=i) for i in range(4)]
    until(lambda: slow[0].status().progress is not None)
    slow[0].cancel()
    ended: Callable[[], bool] = lambda: all(  # noqa: E731
        one.status().state.is_terminal for one in slow
    )
    until(ended)
    assert [one.status().state for one in slow] == ["canceled", *["succeeded"] * 3]
    assert [len(item.images) for item in stripes.map_txt2img(["a", "bb"], seed=1)] == [1, 1]


def test_a_folder_is_tried_in_a_process_of_its_own(tmp_path: Path) -> None:
    folder, sample = pipelines.make("lcm", tmp_path / "lcm"), tmp_path / "sample.png"
    done = run_command({}, "models", "check", str(folder), "-o", str(sample), "--json")
    [found] = json.loads(done.stdout)
    assert (found["kind"], found["repeats_alone"], found["max_batch"]) == ("txt2img", True, 1)
    assert found["schema"]["properties"]["steps"]["maximum"] == 200
    assert found["peak_bytes"] > 10**8
    with Image.open(sample) as drawn:
        assert drawn.size == (32, 32)
    assert "txt2img" in run_command({}, "models", "show", str(folder)).stdout


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise ZeroDivisionError('not yet')", "ZeroDivisionError: not yet"),
        ("import os; os.kill(os.getpid(), 9)", "ended with status -9"),
    ],
)
def test_what_fails_or_dies_when_it_is_tried_is_said(tmp_path: Path, body: str, says: str) -> None:
    folder = tmp_path / "stripes"
    folder.mkdir()
    (folder / "model.py").write_text(STRIPES.replace("self.palette = np", f"{body}; x = np"))
    env = {"CROSSMODAL_ALLOW_MODEL_CODE": "stripes"}
    done = run_command(env, "models", "check", str(folder))
    assert (done.returncode, says in done.stderr) == (1, True), done.stderr
