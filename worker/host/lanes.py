"""Threads that run batches: how many at once, and before whom.

On a CPU there is one for each core, and each computes with that core alone: two small batches
side by side are done sooner than one after the other by threads that wait for each other. On a
GPU there are two, one of which prepares and copies while the other computes.

Bulk has threads of its own, so that an interactive batch never waits for one of its batches.
They step back for the others: by a lower priority of their threads on a CPU, of their stream
on a GPU.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

T = TypeVar("T")

ON_GPU = 2
BULK_NICE = 10
LOW, HIGH = 0, -1  # priorities of CUDA streams


class Lane:
    """A few threads on one device for one kind of batch; nobody waits in it."""

    def __init__(
        self, name: str, device: torch.device, *, is_bulk: bool, batches: int | None = None
    ) -> None:
        def prepare() -> None:
            torch.set_num_threads(1)  # of the operations that this thread calls
            if device.type == "cuda":
                stream: Any = torch.cuda.Stream
                torch.cuda.set_stream(stream(device, LOW if is_bulk else HIGH))
            elif is_bulk:  # on Linux each thread has a priority of its own
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BULK_NICE)

        self.width = batches or (ON_GPU if device.type == "cuda" else cores())
        """Batches that run side by side."""
        self._free = self.width
        self._threads = ThreadPoolExecutor(self.width, name, initializer=prepare)

    @property
    def is_free(self) -> bool:
        return self._free > 0

    def run(self, call: Callable[[], T]) -> "Future[T]":
        """Have a free thread do it; `leave` must follow once it is done."""
        self._free -= 1
        return self._threads.submit(call)

    def leave(self) -> None:
        self._free += 1


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
