"""A folder's models, tried in a process of its own: python -P -m worker.host.check FOLDER DEVICE.

What was found is one line of JSON on standard output, or {"error": {"code", "message"}}.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossmodal.errors import CrossmodalError
from crossmodal.jobs.record import Failure
from crossmodal.kinds.fields import BlobRef
from crossmodal.models.catalog import open_folder
from crossmodal.models.loading import models_of
from crossmodal.settings import load_settings
from crossmodal.vision.encode import encode_png
from worker.host.device import open_device
from worker.host.pipeline import WARMUP_SIDE, Drawn, HostRequest, ModelPipeline

KILOBYTE = 1_024 if sys.platform == "linux" else 1  # of what getrusage counts


class Stopwatch:
    """When each step of a batch was done."""

    def __init__(self) -> None:
        self.steps: list[float] = [time.monotonic()]

    def step(self, done: int, of: int) -> None:
        self.steps.append(time.monotonic())

    @property
    def step_s(self) -> float | None:
        """Seconds of a step, the first apart; None where fewer than two were told."""
        if len(self.steps) < 3:
            return None
        return (self.steps[-1] - self.steps[1]) / (len(self.steps) - 2)


def check(folder: Path, device: str, sample: Path | None) -> list[dict[str, Any]]:
    """What each model of a folder is and does. Raises `ModelInvalid` and its kin."""
    opened = open_device(device)
    settings = load_settings()
    found = open_folder(folder, settings.allowed_model_code)
    return [
        _check_one(ModelPipeline(model), found.folder, str(opened), sample)
        for model in models_of(found)
    ]


def _check_one(
    pipeline: ModelPipeline, folder: Path, device: str, sample: Path | None
) -> dict[str, Any]:
    begun = time.monotonic()
    pipeline.load(folder, device)
    loaded = time.monotonic()
    pipeline.warmup()
    warm = time.monotonic()
    stopwatch, request = Stopwatch(), _request(pipeline)
    [first] = pipeline.run([request], stopwatch)
    ran = time.monotonic()
    if isinstance(first, CrossmodalError):
        raise first
    written = None
    if sample is not None and isinstance(first, Drawn):
        sample.write_bytes(encode_png(first.images[0], ""))
        written = str(sample)
    return {
        "kind": pipeline.model.kind,
        "schema": pipeline.model.Params.model_json_schema(),
        "max_batch": pipeline.model.max_batch,
        "load_s": round(loaded - begun, 2),
        "warmup_s": round(warm - loaded, 2),
        "run_s": round(ran - warm, 3),
        "step_s": None if stopwatch.step_s is None else round(stopwatch.step_s, 4),
        "peak_bytes": _peak(device),
        "written": written,
        "captions": [] if isinstance(first, Drawn) else [one.text for one in first.captions],
        "repeats_alone": _is_same(first, pipeline.run([request])[0]),
        "repeats_in_a_batch": _is_same(first, pipeline.run([request, request])[1]),
    }


def _request(pipeline: ModelPipeline) -> HostRequest:
    """The model's own example, of one thing, on a grey picture where it takes one."""
    fields = {**pipeline.model.example(), "count": 1}
    picture = pipeline.kind.picture
    if picture is None:
        return HostRequest(pipeline.model.Params.model_validate(fields))
    side = pipeline.model.side or WARMUP_SIDE
    params = pipeline.model.Params.model_validate(fields | {picture: BlobRef(key="check")})
    return HostRequest(params, np.full((side, side, 3), 128, np.uint8))


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, Drawn):
        return isinstance(other, Drawn) and np.array_equal(one.images, other.images)
    return bool(one == other)


def _peak(device: str) -> int:
    """The most bytes that the device's memory, or on a CPU this process, has held."""
    if device != "cpu":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILOBYTE


def main() -> int:
    """Print what was found; 1 where the folder cannot be served."""
    folder, device, *sample = sys.argv[1:]
    try:
        found: Any = check(Path(folder), device, Path(sample[0]) if sample else None)
    except CrossmodalError as e:
        found = {"error": Failure.of(e).model_dump()}
    print(json.dumps(found))  # noqa: T201 - its reader is a command of ours
    return 1 if "error" in found else 0


if __name__ == "__main__":
    raise SystemExit(main())
