"""The models that a host serves: those of a bundle, loaded and warm. The one user of torch."""

import os
import time

from crossmodal.garbage import freeze_gc
from crossmodal.kinds.task import Task
from crossmodal.metrics import MODEL_LOAD
from crossmodal.models.bundle import open_bundle
from crossmodal.pipelines.base import Pipeline
from crossmodal.pipelines.img2txt import Img2TxtPipeline
from crossmodal.pipelines.txt2img import Txt2ImgPipeline
from crossmodal.settings import Settings
from worker.host.batcher import Batcher
from worker.host.device import new_lanes, open_device, start_showing_memory
from worker.host.lanes import Quiet
from worker.host.protocol import HostInfo
from worker.host.server import ModelHost


def load(settings: Settings, device_name: str, name: str) -> ModelHost:
    """A host with the models of the settings' bundle, warm, on a device that is called `name`.

    Raises `InvalidBundle` and its kin, or `InvalidSetting` for a device that cannot be used.
    """
    begun = time.monotonic()
    device = open_device(device_name)
    bundle = open_bundle(settings.bundle)
    txt2img = Txt2ImgPipeline(bundle, device)
    img2txt = Img2TxtPipeline(bundle, device)
    for pipeline in (txt2img, img2txt):
        pipeline.warmup()
    MODEL_LOAD.labels(name).set(time.monotonic() - begun)
    info = HostInfo(bundle.name, bundle.version, name, img2txt.side, os.getpid())
    pipelines: dict[Task, Pipeline] = {Task("txt2img"): txt2img, Task("img2txt"): img2txt}
    freeze_gc()
    quiet = Quiet()
    lanes = new_lanes(pipelines, device, quiet, name)
    if device.type == "cuda":
        start_showing_memory(device, name)
    sizes = settings.max_batch, settings.bulk_batch
    return ModelHost(info, Batcher(pipelines, lanes, quiet, *sizes, settings.max_wait_s, name))
