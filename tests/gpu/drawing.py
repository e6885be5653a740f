"""A folder's model on a device, and who watches its steps."""

from pathlib import Path
from typing import Any

import torch

from crossmodal.models.catalog import open_folder
from crossmodal.models.contract import Canceled
from crossmodal.models.loading import models_of
from worker.host.pipeline import HostRequest, ModelPipeline


def loaded(folder: Path, device: torch.device, *allowed: str) -> ModelPipeline:
    """The one model of a folder; `allowed` are folders whose code may be run."""
    found = open_folder(folder, allowed)
    [model] = models_of(found)
    pipeline = ModelPipeline(model)
    pipeline.load(found.folder, str(device))
    return pipeline


def request(pipeline: ModelPipeline, **fields: Any) -> HostRequest:
    """One that asks for a picture."""
    asked = {"prompt": "a red circle", "seed": 7} | fields
    return HostRequest(pipeline.model.Params.model_validate(asked))


class Steps:
    """Notes all steps; after some, nobody wants the batch."""

    def __init__(self, most: int = 1_000) -> None:
        self.taken: list[tuple[int, int]] = []
        self._most = most

    def step(self, done: int, of: int, preview: Any = None) -> None:
        self.taken.append((done, of))
        if len(self.taken) >= self._most:
            raise Canceled
