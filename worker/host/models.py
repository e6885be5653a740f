"""The models that a host serves: those of a folder, loaded and warm. The one user of torch."""

import os
import time

from crossmodal.garbage import freeze_gc
from crossmodal.kinds.task import Task
from crossmodal.metrics import MODEL_LOAD
from crossmodal.models.catalog import Found, find
from crossmodal.settings import Settings
from worker.host.batcher import Batcher
from worker.host.device import new_lanes, open_device, start_showing_memory
from worker.host.lanes import Quiet
from worker.host.pipeline import ModelPipeline
from worker.host.protocol import HostInfo
from worker.host.server import ModelHost


def load(settings: Settings, device_name: str, name: str) -> ModelHost:
    """A host with the models of the settings' bundle, warm, on a device that is called `name`.

    Raises `BundleInvalid` and its kin, or `InvalidSetting` for a device that cannot be used.
    """
    begun = time.monotonic()
    device = open_device(device_name)
    found = find(settings.bundle)
    pipelines = loaded(found, str(device))
    MODEL_LOAD.labels(name).set(time.monotonic() - begun)
    side = next((model.side for model in found.models if model.side is not None), 0)
    info = HostInfo(found.name, found.version, name, side, os.getpid())
    freeze_gc()
    quiet = Quiet()
    lanes = new_lanes(pipelines, device, quiet, name)
    if device.type == "cuda":
        start_showing_memory(device, name)
    sizes = settings.max_batch, settings.bulk_batch
    return ModelHost(info, Batcher(pipelines, lanes, quiet, *sizes, settings.max_wait_s, name))


def loaded(found: Found, device: str) -> dict[Task, ModelPipeline]:
    """The models of a folder, on a device as torch calls it, warm."""
    pipelines = {Task(model.kind): ModelPipeline(model) for model in found.models}
    for pipeline in pipelines.values():
        pipeline.model.load(found.folder, device)
        pipeline.warmup()
    return pipelines
