"""More than the device has: a batch is halved, a request fails alone, and the next one succeeds."""

from pathlib import Path

import pytest
import torch

from crossmodal.errors import GpuOutOfMemory
from tests.gpu.drawing import loaded, request
from worker.host.isolation import run_isolated
from worker.host.pipeline import Drawn, HostRequest, ModelPipeline

GREEDY = """
import numpy as np
import torch

from crossmodal.models.contract import Batch, Model

SHARE = 0.4  # of what is free: two have room, three do not
HUGE = 1 << 50  # bytes; no device has as many


class Greedy(Model):
    kind = "txt2img"
    max_batch = 4

    def load(self, folder, device):
        self.device, self.sizes = torch.device(device), []
        free = torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else 0
        self.share = int(free * SHARE) or 1 << 20

    def run(self, batch: Batch):
        self.sizes.append(len(batch))
        held = [self.taken(request.params.prompt, number) for number, request in enumerate(batch)]
        return [np.full((8, 8, 3), len(held), np.uint8) for _ in batch]

    def taken(self, prompt, number):
        too_many = self.device.type == "cpu" and number >= 2  # it would only promise the memory
        size = HUGE if prompt == "huge" or too_many else self.share
        return torch.empty(size, dtype=torch.uint8, device=self.device)
"""


@pytest.fixture
def greedy(device: torch.device, tmp_path: Path) -> ModelPipeline:
    folder = tmp_path / "greedy"
    folder.mkdir()
    (folder / "model.py").write_text(GREEDY)
    return loaded(folder, device, "greedy")


def asked(pipeline: ModelPipeline, *prompts: str) -> list[HostRequest]:
    return [request(pipeline, prompt=prompt) for prompt in prompts]


def sizes(pipeline: ModelPipeline) -> list[int]:
    """Of the batches that the model was called with."""
    found: list[int] = pipeline.model.sizes  # type: ignore[attr-defined]
    return found


def test_a_batch_that_is_too_large_runs_in_halves(greedy: ModelPipeline) -> None:
    outcomes = run_isolated(greedy, asked(greedy, *["a circle"] * 4))
    assert [type(one) for one in outcomes] == [Drawn] * 4
    assert sizes(greedy) == [4, 2, 2]


def test_a_request_that_is_too_large_fails_alone_and_the_next_succeeds(
    greedy: ModelPipeline,
) -> None:
    [failed] = run_isolated(greedy, asked(greedy, "huge"))
    assert isinstance(failed, GpuOutOfMemory)
    assert failed.code == "gpu_out_of_memory"
    [drawn] = run_isolated(greedy, asked(greedy, "a circle"))
    assert isinstance(drawn, Drawn)
    mixed = run_isolated(greedy, asked(greedy, "a circle", "huge"))
    assert [type(one) for one in mixed] == [Drawn, GpuOutOfMemory]
    assert sizes(greedy) == [1, 1, 2, 1, 1]
