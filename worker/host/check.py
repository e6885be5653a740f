"""Tries a folder's models in its own process: python -P -m worker.host.check FOLDER DEVICE.

Prints one line of JSON: the findings, or {"error": {"code", "message"}}.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossmodal.errors import CrossmodalError
from crossmodal.jobs.record import Failure
from crossmodal.models.catalog import open_folder
from crossmodal.models.loading import models_of
from crossmodal.settings import load_settings
from crossmodal.vision.encode import encode_png
from worker.host.device import open_device, peak_bytes
from worker.host.pipeline import Drawn, HostRequest, ModelPipeline


def check(folder: Path, device: str, sample: Path | None) -> list[dict[str, Any]]:
    """Load and run each model of a folder; return the findings.

    Raises `InvalidModel` and related errors.
    """
    opened = open_device(device)
    settings = load_settings()
    found = open_folder(folder, settings.allowed_model_code)
    return [
        _check_one(ModelPipeline(model), found.folder, opened, sample) for model in models_of(found)
    ]


def _check_one(
    pipeline: ModelPipeline, folder: Path, device: torch.device, sample: Path | None
) -> dict[str, Any]:
    begun = time.monotonic()
    pipeline.load(folder, str(device))
    loaded = time.monotonic()
    served = pipeline.served(pipeline.warmup())
    warm = time.monotonic()
    request = _one(pipeline.example())
    [first] = pipeline.run([request])
    if isinstance(first, CrossmodalError):
        raise first
    written = None
    if sample is not None and isinstance(first, Drawn):
        sample.write_bytes(encode_png(first.images[0], ""))
        written = str(sample)
    return {
        "kind": pipeline.model.kind,
        "schema": served.params,
        "max_batch": served.max_batch,
        "load_s": round(loaded - begun, 2),
        "warmup_s": round(warm - loaded, 2),
        "run_s": served.run_s,
        "step_s": served.step_s,
        "peak_bytes": peak_bytes(device),
        "written": written,
        "captions": [] if isinstance(first, Drawn) else [one.text for one in first.captions],
        "repeats_alone": _is_same(first, pipeline.run([request])[0]),
        "repeats_in_a_batch": _is_same(first, pipeline.run([request, request])[1]),
    }


def _one(request: HostRequest) -> HostRequest:
    """Return the same request with a count of 1."""
    return request._replace(params=request.params.model_copy(update={"count": 1}))


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, Drawn):
        return isinstance(other, Drawn) and np.array_equal(one.images, other.images)
    return bool(one == other)


def main() -> int:
    """Print the findings; return 1 if the folder cannot be served."""
    folder, device, *sample = sys.argv[1:]
    try:
        found: Any = check(Path(folder), device, Path(sample[0]) if sample else None)
    except CrossmodalError as e:
        found = {"error": Failure.of(e).model_dump()}
    print(json.dumps(found))  # noqa: T201 - the command that runs this reads it
    return 1 if "error" in found else 0


if __name__ == "__main__":
    raise SystemExit(main())
