"""A device that has run out of memory: how it says so, and how to get some back."""

import gc

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device, or the machine, had no memory for what was asked of it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # The CPU's allocator has no exception of its own.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def free_memory() -> None:
    """Give back what nothing holds any more, also from the device's cache."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
