"""A device that torch computes on: how it is opened, its lanes, its memory.

On a CPU there is a process for each core. Threads would wait for each other: between two
operations of one batch, the interpreter's lock belongs to another. On a GPU there are two
threads, one of which prepares and copies while the other computes. So it is where processes
that hold torch cannot be forked, too.
"""

import resource
import sys
import threading
from typing import Any

import torch

from crossmodal.errors import InvalidSetting
from crossmodal.metrics import GPU_MEMORY
from worker.host.lanes import Lane, Pipelines, Quiet, core_lanes, never

ON_GPU = 2
LOW, HIGH = 0, -1  # priorities of CUDA streams
SHOW_S = 1.0
KILOBYTE = 1_024 if sys.platform == "linux" else 1  # of what getrusage counts


def open_device(name: str) -> torch.device:
    """A torch device that can be computed on. Raises `InvalidSetting`."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as e:
        raise InvalidSetting(f"the device {name!r} cannot be used: {str(e).splitlines()[0]}") from e
    if device.type == "cpu":
        torch.set_num_threads(1)  # of a pool of threads a forked process would have none
    return device


def new_lanes(
    pipelines: Pipelines, device: torch.device, quiet: Quiet, name: str
) -> tuple[Lane, Lane]:
    """The lanes of a device that is called `name`: one for interactive batches, one for bulk.

    They are the same, of one place, where a model cannot be run by several threads.
    """
    if device.type == "cpu":
        return core_lanes(pipelines, quiet, name, lambda: torch.set_num_threads(1))
    if not all(pipeline.is_concurrent for pipeline in pipelines.values()):
        only = Lane(pipelines, 1, never, lambda: _use_stream(device, HIGH), name)
        return only, only
    return (
        Lane(pipelines, ON_GPU, never, lambda: _use_stream(device, HIGH), name),
        Lane(pipelines, ON_GPU, quiet.give_way, lambda: _use_stream(device, LOW), name),
    )


def _use_stream(device: torch.device, priority: int) -> None:
    torch.set_num_threads(1)  # of the operations that this thread calls
    stream: Any = torch.cuda.Stream
    torch.cuda.set_stream(stream(device, priority))


def peak_bytes(device: torch.device) -> int:
    """The most that this process has held of the device's memory; on a CPU, of the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILOBYTE


def start_showing_memory(device: torch.device, name: str) -> None:
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
