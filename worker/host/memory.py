"""Detection of a device that is out of memory or broken, and freeing of memory.

Torch is not imported here: its errors can only come from a torch that is loaded, and a host whose
models need none must not load it.
"""

import gc
import sys

NO_MEMORY = ("can't allocate memory", "error: out of memory", "_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the device, or the machine, ran out of memory."""
    if isinstance(error, (MemoryError, *_of_torch("OutOfMemoryError"))):
        return True
    # Torch's CPU allocator raises a RuntimeError, and so does CUDA outside torch's allocator.
    return isinstance(error, RuntimeError) and any(text in str(error) for text in NO_MEMORY)


def is_broken(error: BaseException) -> bool:
    """Return whether the device will fail everything until its process is replaced.

    It does after a failed assertion in a kernel, an illegal address, an uncorrectable memory error.
    """
    if is_out_of_memory(error):
        return False
    return isinstance(error, _of_torch("AcceleratorError")) or "CUDA error" in str(error)


def free_memory() -> None:
    """Free what is not referenced any more, also in the device's cache."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _of_torch(name: str) -> tuple[type[BaseException], ...]:
    """Return an exception class of torch's, if torch is loaded."""
    torch = sys.modules.get("torch")
    return () if torch is None else (getattr(torch, name),)
