"""The torch device: how it is opened, its lanes, its memory.

On a CPU there is a process for each core: threads would wait for the interpreter's lock between two
operations of a batch. On a GPU there are two threads, one of which prepares and copies while the
other computes. Threads are also used where processes that hold torch cannot be forked.
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
KILOBYTE = 1_024 if sys.platform == "linux" else 1  # the unit of getrusage's ru_maxrss, in bytes


def open_device(name: str) -> torch.device:
    """Return a torch device that can compute. Raises `InvalidSetting`."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as e:
        raise InvalidSetting(f"the device {name!r} cannot be used: {str(e).splitlines()[0]}") from e
    if device.type == "cpu":
        torch.set_num_threads(1)  # a forked process has no thread pool
    return device


def new_lanes(
    pipelines: Pipelines, device: torch.device, quiet: Quiet, name: str
) -> tuple[Lane, Lane]:
    """Return the interactive and the bulk lane of a device that is called `name`.

    They are the same lane, with one place, if several threads cannot run a model at once.
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
    torch.set_num_threads(1)  # for the operations that this thread calls
    stream: Any = torch.cuda.Stream
    torch.cuda.set_stream(stream(device, priority))


def peak_bytes(device: torch.device) -> int:
    """Return the peak of device memory that this process has held; on a CPU, of main memory."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILOBYTE


def start_showing_memory(device: torch.device, name: str) -> None:
    """Start to export the memory use of a GPU, called `name`, as metrics.

    In a thread: a device that hangs may block the calls.
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
