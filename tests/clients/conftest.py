"""A gateway with keys before a worker of the shipped models and of one that tells its steps."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from crossmodal.jobs.models import Models
from crossmodal.jobs.record import Job, JobState, ModelInfo, ModelState, ServedKind
from crossmodal.jobs.runners import Runner
from producer import Client
from tests.commands import run_command
from tests.conftest import settings_of, stack_environment
from tests.gateway import Gateway, running_gateway
from tests.servers import start_server
from tests.waiting import until
from tests.workers import real_worker

SCRIPTS = Path(__file__).parent / "scripts"
LOAD_S = 120.0
SCRIPT_S = 200.0
SKETCHER = """
import time

import numpy as np
from pydantic import Field

from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.models.contract import Batch, Model


class SketcherParams(Txt2ImgParams):
    steps: int = Field(default=2, ge=1, le=200)
    width: int = Field(default=64, ge=8, le=512, multiple_of=8)
    height: int = Field(default=64, ge=8, le=512, multiple_of=8)
    negative_prompt: str = Field(default="", max_length=500)


class Sketcher(Model):
    kind = "txt2img"
    Params = SketcherParams
    shared = ("steps", "width", "height")

    def load(self, folder, device): ...

    def run(self, batch: Batch):
        params = batch[0].params
        for step in range(1, params.steps + 1):
            time.sleep(0.3)  # in place of a large model's computing
            batch.step(step, params.steps, preview=lambda: [self.sketch(step) for _ in batch])
        size = (params.height, params.width, 3)
        return [np.full(size, one.seed % 256, np.uint8) for one in batch]

    def sketch(self, step):
        return np.full((32, 32, 3), step % 256, np.uint8)
"""


@dataclass(frozen=True)
class World:
    """What a client needs: where the gateway is, and a key."""

    env: dict[str, str]
    client: Client
    gateway: Gateway
    token: str

    def jobs(self, prompt: str) -> list[Job]:
        """The key's jobs with that prompt, the latest first."""
        found = self.client.jobs(self.token.split("_")[1]).jobs
        return [job for job in found if job.params.get("prompt") == prompt]

    def states(self, prompt: str) -> list[JobState]:
        return [job.state for job in self.jobs(prompt)]

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a client's program."""
        return os.environ | {
            "CROSSMODAL_URL": self.gateway.url,
            "CROSSMODAL_API_KEY": self.token,
            "OPENAI_BASE_URL": f"{self.gateway.url}/v1",
            "OPENAI_API_KEY": self.token,
            "NO_PROXY": "*",
        }

    def run(self, *argv: str | Path, **variables: str) -> str:
        """What a client's program has printed, whose end must be a good one."""
        done = subprocess.run(
            argv,
            env=self.variables | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=SCRIPT_S,
            cwd=SCRIPTS,
        )
        assert done.returncode == 0, f"{done.stdout[-2_000:]}\n{done.stderr[-4_000:]}"
        return done.stdout


def made_key(env: dict[str, str], *options: str) -> str:
    done = run_command(env, "keys", "create", "clients", *options, "--json")
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["token"])


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("clients")
    folder = root / "models" / "sketcher"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(SKETCHER)
    server = start_server(root / "valkey")
    env = stack_environment(server.port, root) | {
        "CROSSMODAL_MODELS": str(root / "models"),
        "CROSSMODAL_ALLOW_MODEL_CODE": "sketcher",
        "CROSSMODAL_DEVICE_MEMORY": str(2**40),
        "CROSSMODAL_ALLOW_PRIVATE_URLS": "true",
    }
    try:
        token = made_key(env)
        with (
            real_worker(env, root / "worker", 8),
            running_gateway(env, root, "--keys") as gateway,
            Client(settings_of(env)) as client,
        ):
            until(lambda: is_loaded(client, "sketcher"), LOAD_S)
            yield World(env, client, gateway, token)
    finally:
        server.stop()


@pytest.fixture(scope="session")
def circle(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture to describe."""
    drawn = world.client.txt2img("a large red circle on a white background", seed=7)
    file = tmp_path_factory.mktemp("circle") / "circle.png"
    file.write_bytes(world.client.read(drawn.result(timeout_s=LOAD_S).images[0]))
    return file


@pytest.fixture(scope="session")
def full_url(world: World, circle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a gateway of short queues, of which those of the model `away` are full."""
    settings = settings_of(world.env)
    kinds = {"txt2img": ServedKind(), "img2txt": ServedKind()}
    away = ModelInfo(name="away", version="1", format="code", kinds=kinds)
    with Runner(settings) as runner:
        runner.run(Models(settings).announce([away]))  # by a worker that is no more
    world.client.models(max_age_s=0)
    world.client.txt2img("x", model="away")
    world.client.img2txt(circle, model="away")
    env = world.env | {"CROSSMODAL_MAX_QUEUE_LENGTH": "1"}
    with running_gateway(env, tmp_path_factory.mktemp("full"), "--keys") as gateway:
        yield gateway.url


def is_loaded(client: Client, model: str) -> bool:
    return client.models(max_age_s=0).state(model) is ModelState.LOADED
