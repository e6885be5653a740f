"""A stack for tests of the page: models with their own params, one of them broken."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crossmodal.jobs.record import ModelState
from producer import Client
from tests.background import background
from tests.conftest import settings_of, stack_environment
from tests.gateway import Gateway, running_gateway
from tests.servers import start_server
from tests.waiting import until
from tests.workers import real_worker

LOAD_S = 120.0
PAINTER = """
import time
from typing import Literal

import numpy as np
from pydantic import Field

from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.models.contract import Batch, Model


class PainterParams(Txt2ImgParams):
    steps: int = Field(default=2, ge=1, le=200, description="More take longer.")
    width: int = Field(default=128, ge=8, le=512, multiple_of=8)
    height: int = Field(default=96, ge=8, le=512, multiple_of=8)
    style: Literal["dawn", "noon", "dusk"] = Field(default="dawn", description="The light.")
    grain: bool = Field(default=False, description="As of a film.")
    negative_prompt: str = Field(default="", max_length=500, description="What not to draw.")


class Painter(Model):
    kind = "txt2img"
    Params = PainterParams
    shared = ("steps", "width", "height")
    description = "Skies over hills, in a few steps."

    def load(self, folder, device): ...

    def run(self, batch: Batch):
        params = batch[0].params
        for step in range(1, params.steps + 1):
            time.sleep(0.2)  # in place of a large model's computing
            batch.step(step, params.steps, preview=lambda: [sky(one, 64, 48) for one in batch])
        return [sky(one, params.width, params.height) for one in batch]


COLORS = {"dawn": ((255, 214, 165), (110, 140, 200)), "noon": ((190, 225, 255), (60, 120, 210)),
          "dusk": ((250, 150, 110), (50, 40, 90))}


def sky(one, width, height):
    random = np.random.default_rng(one.seed)
    low, high = (np.array(color, float) for color in COLORS[one.params.style])
    up = np.linspace(1, 0, height)[:, None, None]
    picture = np.broadcast_to(up * high + (1 - up) * low, (height, width, 3)).copy()
    x = np.arange(width) / width
    for shade in (0.75, 0.5, 0.3):
        phase, waves, base = random.uniform(0, 6.3), random.uniform(4, 9), random.uniform(0.2, 0.3)
        hill = (base + shade / 4 + 0.08 * np.sin(waves * x + phase)) * height
        below = (height - np.arange(height))[:, None] < hill[None, :]
        picture[below] = np.array([70, 90, 80]) * shade + 30
    if one.params.grain:
        picture += random.normal(0, 12, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)
"""
SLOW = """
import time

import numpy as np

from crossmodal.models.contract import Batch, Model


class Slow(Model):
    kind = "txt2img"

    def load(self, folder, device):
        while not (folder / "go").exists():
            time.sleep(0.1)  # it loads for as long as a test wants it to

    def run(self, batch: Batch):
        return [np.full((32, 32, 3), 200, np.uint8) for _ in batch]
"""
BROKEN = """
from crossmodal.models.contract import Model


class Broken(Model):
    kind = "txt2img"

    def load(self, folder, device):
        raise RuntimeError("its weights are of another version")

    def run(self, batch): ...
"""


@dataclass(frozen=True)
class Studio:
    """A gateway, and a worker with the shipped models, one that reports steps, and a broken one.

    A fourth model loads once there is a file `go` in its folder.
    """

    env: dict[str, str]
    client: Client
    gateway: Gateway
    slow: Path


@contextmanager
def running_studio(root: Path) -> Iterator[Studio]:
    for name, code in {"painter": PAINTER, "broken": BROKEN, "turbo": SLOW}.items():
        folder = root / "models" / name
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(code)
    server = start_server(root / "valkey")
    env = stack_environment(server.port, root) | {
        "CROSSMODAL_MODELS": str(root / "models"),
        "CROSSMODAL_DEVICE_MEMORY": str(2**40),
        "CROSSMODAL_ALLOW_MODEL_CODE": "painter,broken,turbo",
    }
    try:
        with (
            real_worker(env, root / "worker", 4),
            running_gateway(env, root) as gateway,
            background(env, root / "background"),
            Client(settings_of(env)) as client,
        ):
            until(lambda: state(client, "painter") is ModelState.LOADED, LOAD_S)
            until(lambda: state(client, "broken") is ModelState.BROKEN, LOAD_S)
            until(lambda: state(client, "turbo") is ModelState.LOADING, LOAD_S)
            yield Studio(env, client, gateway, root / "models" / "turbo")
    finally:
        server.stop()


def state(client: Client, model: str) -> ModelState:
    return client.models(max_age_s=0).state(model)
