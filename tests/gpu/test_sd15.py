"""Stable Diffusion 1.5 in its true dimensions, with random weights in half precision.

On the CPU it is the same parts, small.
"""

import time
from pathlib import Path

import pytest
import torch

from crossmodal.kinds.task import Task
from crossmodal.models.catalog import open_folder
from crossmodal.models.contract import Canceled
from tests.gpu.drawing import Steps, loaded, request
from tests.tiny import sd15
from worker.host.device import peak_bytes
from worker.host.lanes import Lane
from worker.host.pipeline import Drawn, ModelPipeline
from worker.host.watch import CHECK_S, Watch

STEPS = 20
WAIT_S = 120.0


def config(device: torch.device) -> str:
    is_small = device.type == "cpu"
    side, dtype = (64, "bfloat16") if is_small else (512, "float16")
    return (
        f'dtype = "{dtype}"\nmax_batch = 4\n'
        f"[defaults]\nwidth = {side}\nheight = {side}\nsteps = {STEPS}\n"
    )


@pytest.fixture(scope="module")
def folder(device: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "sd15"
    size = sd15.SMALL if device.type == "cpu" else sd15.TRUE
    sd15.make(path, size, torch.float16)
    (path / "crossmodal.toml").write_text(config(device))
    return path


@pytest.fixture(scope="module")
def pipeline(folder: Path, device: torch.device) -> ModelPipeline:
    made = loaded(folder, device)
    made.warmup()
    return made


def test_it_draws_and_tells_its_steps(
    pipeline: ModelPipeline, folder: Path, device: torch.device
) -> None:
    steps = Steps()
    [drawn] = pipeline.run([request(pipeline)], steps)
    assert isinstance(drawn, Drawn)
    side = pipeline.model.Params.model_fields["width"].default
    assert drawn.images.shape == (1, side, side, 3)
    assert steps.taken == [(i, STEPS + 1) for i in range(1, STEPS + 2)]  # PNDM takes one more
    assert peak_bytes(device) > open_folder(folder).weights_bytes


def test_four_are_drawn_at_once(pipeline: ModelPipeline) -> None:
    steps = Steps()
    drawn = pipeline.run([request(pipeline, seed=i, steps=4) for i in range(4)], steps)
    assert [type(one) for one in drawn] == [Drawn] * 4
    assert len(steps.taken) == 5


def test_a_canceled_batch_ends_at_its_next_step(pipeline: ModelPipeline) -> None:
    """In a lane, as in a host: a look at the clock may pass before it is looked whether to end."""
    task, watch = Task("txt2img"), Watch()
    steps: list[float] = []

    def count() -> None:
        steps.append(time.monotonic())
        if len(steps) == 2:
            watch.cancel()

    lane = Lane({task: pipeline}, 1, pause=count)
    future = lane.run(task, [request(pipeline, steps=200)], watch)
    with pytest.raises(Canceled):
        future.result(WAIT_S)
    lane.close()
    assert len([at for at in steps if at > steps[1] + CHECK_S]) <= 1
    [again] = pipeline.run([request(pipeline, steps=2)])
    assert isinstance(again, Drawn)
