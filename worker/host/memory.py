"""A device that is out of memory, or broken: how it says so, and what can be done."""

import gc
import threading

import torch

from crossmodal.metrics import GPU_MEMORY

SHOW_S = 1.0
NO_MEMORY = ("can't allocate memory", "error: out of memory", "_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device, or the machine, had no memory for what was asked of it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # The CPU's allocator has no exception of its own, nor has CUDA outside torch's, as for events.
    return isinstance(error, RuntimeError) and any(text in str(error) for text in NO_MEMORY)


def is_broken(error: BaseException) -> bool:
    """Whether the device will fail everything from now on, until its process is a new one.

    So do a failed assertion in a kernel, an illegal address, an uncorrectable memory error.
    """
    if is_out_of_memory(error):
        return False
    return isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)


def free_memory() -> None:
    """Give back what nothing holds any more, also from the device's cache."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def start_showing(device: torch.device, name: str) -> None:
    """Have metrics show what the memory of a GPU, called `name`, holds, from now on.

    A thread does it, because a device that hangs may hold up whoever asks.
    """
    threading.Thread(
        target=_keep_showing, args=(device, name), name="gpu memory", daemon=True
    ).start()


def _keep_showing(device: torch.device, name: str) -> None:
    total = torch.cuda.get_device_properties(device).total_memory
    GPU_MEMORY.labels(name, "total").set(total)
    never = threading.Event()
    while not never.wait(SHOW_S):
        GPU_MEMORY.labels(name, "allocated").set(torch.cuda.memory_allocated(device))
        GPU_MEMORY.labels(name, "reserved").set(torch.cuda.memory_reserved(device))
