"""A device that is out of memory, or broken: how it says so, and what can be done.

A host whose models need no torch does not load it for this: what torch raises can only come
from a torch that is loaded.
"""

import gc
import sys

NO_MEMORY = ("can't allocate memory", "error: out of memory", "_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device, or the machine, had no memory for what was asked of it."""
    if isinstance(error, (MemoryError, *_of_torch("OutOfMemoryError"))):
        return True
    # The CPU's allocator has no exception of its own, nor has CUDA outside torch's, as for events.
    return isinstance(error, RuntimeError) and any(text in str(error) for text in NO_MEMORY)


def is_broken(error: BaseException) -> bool:
    """Whether the device will fail everything from now on, until its process is a new one.

    So do a failed assertion in a kernel, an illegal address, an uncorrectable memory error.
    """
    if is_out_of_memory(error):
        return False
    return isinstance(error, _of_torch("AcceleratorError")) or "CUDA error" in str(error)


def free_memory() -> None:
    """Give back what nothing holds any more, also from the device's cache."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _of_torch(name: str) -> tuple[type[BaseException], ...]:
    """An exception of torch's, if torch is loaded."""
    torch = sys.modules.get("torch")
    return () if torch is None else (getattr(torch, name),)
