"""Threads that run batches: how many, with how many cores each, and before whom.

Bulk has threads of its own, so that an interactive batch never waits for one of its batches.
They share the device with the others and step back: by a lower priority of their threads on
a CPU, of their stream on a GPU.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

T = TypeVar("T")

BULK_NICE = 10
LOW, HIGH = 0, -1  # priorities of CUDA streams


@dataclass(frozen=True)
class Width:
    """Of one kind of batch: so many may run at once, each with so many threads of torch."""

    batches: int
    threads: int


class Lane:
    """A few threads on one device for one kind of batch; nobody waits in it."""

    def __init__(self, name: str, device: torch.device, width: Width, *, is_bulk: bool) -> None:
        def prepare() -> None:
            torch.set_num_threads(width.threads)  # of this thread's operations
            if device.type == "cuda":
                stream: Any = torch.cuda.Stream
                torch.cuda.set_stream(stream(device, LOW if is_bulk else HIGH))
            elif is_bulk:  # Linux has a priority for each thread, and OpenMP's inherit it
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BULK_NICE)

        self._free = width.batches
        self._threads = ThreadPoolExecutor(width.batches, name, initializer=prepare)

    @property
    def is_free(self) -> bool:
        return self._free > 0

    def run(self, call: Callable[[], T]) -> "Future[T]":
        """Have a free thread do it; `leave` must follow once it is done."""
        self._free -= 1
        return self._threads.submit(call)

    def leave(self) -> None:
        self._free += 1


def width_of(device: torch.device, *, is_parallel: bool) -> Width:
    """How many batches of a pipeline run at once on the device.

    On a CPU one that can use all cores gets them; of others there is one for each core. On a
    GPU there are two: one is prepared and copied while the other computes.
    """
    if device.type == "cuda":
        return Width(batches=2, threads=1)
    cores = len(os.sched_getaffinity(0))
    return Width(1, cores) if is_parallel else Width(cores, 1)
