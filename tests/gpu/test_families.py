"""Six families of pipelines on the device, tiny and random, in the type that a GPU has them in."""

from pathlib import Path

import numpy as np
import pytest
import torch

from crossmodal.models.contract import Canceled
from tests.gpu.drawing import Steps, loaded, request
from tests.tiny import pipelines
from worker.host.pipeline import Drawn

SIZE = {"width": 32, "height": 32, "steps": 4}


@pytest.mark.parametrize("name", list(pipelines.FAMILIES))
def test_a_family_draws_tells_its_steps_can_be_ended_and_repeats_itself(
    name: str, device: torch.device, tmp_path: Path
) -> None:
    folder = pipelines.make(name, tmp_path / name)
    (folder / "crossmodal.toml").write_text('dtype = "bfloat16"\n')  # on a CPU, too
    pipeline = loaded(folder, device)
    pipeline.warmup()
    asked, steps = request(pipeline, **SIZE), Steps()
    [drawn] = pipeline.run([asked], steps)
    assert isinstance(drawn, Drawn)
    assert drawn.images.shape == (1, 32, 32, 3)
    assert steps.taken == [(i, 4) for i in range(1, 5)]
    ended = Steps(most=2)
    with pytest.raises(Canceled):
        pipeline.run([asked], ended)
    assert len(ended.taken) == 2
    [again] = pipeline.run([asked])
    assert isinstance(again, Drawn)
    assert np.array_equal(again.images, drawn.images)


def test_without_a_word_a_gpu_computes_in_bfloat16(device: torch.device, tmp_path: Path) -> None:
    pipeline = loaded(pipelines.make("sd", tmp_path / "sd"), device)
    found = pipeline.model._pipe.unet.dtype  # type: ignore[attr-defined]
    assert found == (torch.float32 if device.type == "cpu" else torch.bfloat16)
