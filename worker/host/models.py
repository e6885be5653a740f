"""Loads and warms up the models of a folder for a host. The one user of torch."""

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import replace

from crossmodal.errors import InvalidModel
from crossmodal.garbage import freeze_gc
from crossmodal.jobs.record import ModelInfo
from crossmodal.kinds.registry import kind_named
from crossmodal.kinds.task import Task
from crossmodal.metrics import MODEL_LOAD
from crossmodal.models.catalog import ModelFolder, open_folder
from crossmodal.models.loading import models_of
from crossmodal.settings import Settings
from worker.host.batcher import Batcher
from worker.host.device import new_lanes, open_device, peak_bytes, start_showing_memory
from worker.host.lanes import Quiet
from worker.host.pipeline import ModelPipeline
from worker.host.protocol import HostInfo
from worker.host.server import ModelHost
from worker.host.turn import Turn

WHOLE_SIDE = 1_024  # max pixels of a picture's longer side, for a model that takes it whole


def load(settings: Settings, device_name: str, name: str) -> ModelHost:
    """Return a host with the models of the settings' bundle, warm, on a device called `name`.

    Raises `InvalidBundle` and related errors, or `InvalidSetting` for a device that cannot be used.
    """
    begun = time.monotonic()
    device = open_device(device_name)
    found = open_folder(settings.bundle, settings.allowed_model_code)
    found = replace(found, name=settings.model_name or found.name)
    pipelines = loaded(found, str(device))
    told = _told(found, pipelines)
    params = {kind: served.params for kind, served in told.kinds.items()}
    load_s = time.monotonic() - begun
    MODEL_LOAD.labels(name).set(load_s)
    side = _side(found, pipelines.values())
    info = HostInfo(
        found.name, found.version, name, side or WHOLE_SIDE, os.getpid(), side is not None, params
    )
    freeze_gc()
    quiet = Quiet()
    lanes = new_lanes(pipelines, device, quiet, name)
    if device.type == "cuda":
        start_showing_memory(device, name)
    sizes = settings.max_batch, settings.bulk_batch
    turn = None
    if settings.turn_file is not None:
        turn = Turn(settings.turn_file, shares=found.config.together)
    batcher = Batcher(pipelines, lanes, quiet, *sizes, settings.max_wait_s, name, turn)
    measured = {"load_s": round(load_s, 2), "peak_bytes": peak_bytes(device)}
    return ModelHost(info, batcher, told.model_copy(update=measured))


def loaded(found: ModelFolder, device: str) -> dict[Task, ModelPipeline]:
    """Load the models of a folder to a torch device. Raises `InvalidModel`."""
    pipelines = {Task(model.kind): ModelPipeline(model) for model in models_of(found)}
    for pipeline in pipelines.values():
        pipeline.load(found.folder, device)
    return pipelines


def _side(found: ModelFolder, pipelines: Collection[ModelPipeline]) -> int | None:
    """Return the side of the squares that pictures are scaled to; None if they come whole.

    Raises `InvalidModel`.
    """
    sides = {p.model.side for p in pipelines if kind_named(p.model.kind).picture}
    if len(sides) > 1:
        raise InvalidModel(f"{found.folder}: its models need pictures of different sides: {sides}")
    return next(iter(sides), None)


def _told(found: ModelFolder, pipelines: Mapping[Task, ModelPipeline]) -> ModelInfo:
    """Warm the models up and return what is published of them. Raises `InvalidModel`."""
    return ModelInfo(
        name=found.name,
        version=found.version,
        format=found.format,
        kinds={task.kind.name: p.served(p.warmup()) for task, p in pipelines.items()},
        aliases=found.config.aliases,
        description=found.config.description,
        vocabulary=next(filter(None, (p.model.vocabulary for p in pipelines.values())), None),
    )
