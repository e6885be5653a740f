"""How much memory a device has for models, and a model may need. Never imports torch."""

import os
import shutil
import subprocess
from pathlib import Path

from crossmodal.settings import Settings
from worker.devices import CGROUP, Device
from worker.serving import ServedModel

GPU_SHARE = 0.95
MACHINE_SHARE = 0.75  # the rest is for Redis, decoders and other processes
BASE = {"cpu": 900_000_000, "cuda": 800_000_000}  # bytes of a process with torch, without weights
ROOM = 1.3  # times the weights, to allow for activations


def capacity(settings: Settings, device: Device) -> int:
    """Return the bytes that the models of a device may use together."""
    if settings.device_memory is not None:
        return settings.device_memory
    if device.name == "cpu":
        return int(_machine_bytes() * MACHINE_SHARE)
    return int(_gpu_bytes(device) * GPU_SHARE)


def needed(model: ServedModel, device: Device) -> int:
    """Return the bytes that a model may need: measured in its warm-up, else from its weights."""
    peak = model.said().peak_bytes
    return peak or int(BASE[device.torch_name] + ROOM * model.size)


def _machine_bytes(cgroup: Path = CGROUP) -> int:
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(found, int((cgroup / "memory.max").read_text()))
    except (OSError, ValueError):  # there is no limit
        return found


def _gpu_bytes(device: Device) -> int:
    """Return the bytes of a GPU's memory; if unknown, more than any model needs."""
    index = device.environment()["CUDA_VISIBLE_DEVICES"]
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", "-i", index]
    if shutil.which("nvidia-smi") is None:
        return 2**62
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
        return int(told.stdout.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return 2**62
