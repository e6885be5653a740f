"""The lanes of a host: where batches run, how many at once, and with which priority.

A place is a thread of the host, or a process forked from it once the models are loaded, so that
they share the weights; `worker.host.device` chooses.

Bulk has lanes of its own, so that an interactive batch never waits for a bulk one. Bulk lanes have
a lower priority: of the process on a CPU, of the stream on a GPU.
"""

import logging
import mmap
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from crossmodal.kinds.task import Task
from crossmodal.metrics import count_as
from crossmodal.models.contract import Canceled
from crossmodal.processes import die_with_parent, wait_until
from worker.devices import cores
from worker.host.isolation import run_isolated
from worker.host.pipeline import HostRequest, Outcome, Pipeline
from worker.host.watch import CANCEL, NOBODY, Stepper, Watch, Watched

log = logging.getLogger(__name__)

BULK_NICE = 10
GIVE_WAY_S = 0.1  # max time that a step of a bulk batch is held up
CLOSE_S = 1.0
POLL_S = 0.002

Pipelines = Mapping[Task, Pipeline]
Pause = Callable[[], None]


def never() -> None:
    """Do not pause: the `pause` of interactive lanes."""


class Quiet:
    """A flag for "no interactive batch runs", shared by all threads and processes of a host.

    It is a byte of shared memory: multiprocessing's events need a writable /dev/shm.
    """

    def __init__(self) -> None:
        self._busy = mmap.mmap(-1, 1)

    def begin(self) -> None:
        self._busy[0] = False

    def end(self) -> None:
        self._busy[0] = True

    def give_way(self) -> None:
        """Hold up a bulk batch while interactive ones run, for at most `GIVE_WAY_S`."""
        wait_until(lambda: not self._busy[0], GIVE_WAY_S, POLL_S)


class Lane:
    """`width` places for batches, each a thread of this process; a lane has no queue."""

    def __init__(
        self,
        pipelines: Pipelines,
        width: int,
        pause: Pause = never,
        prepare: Callable[[], None] = lambda: None,
        device: str = "cpu",
        name: str = "",
    ) -> None:
        self.width = width
        self._device = device
        self._free = width
        self._pipelines = pipelines
        self._pause = pause
        self._threads = ThreadPoolExecutor(width, "lane", initializer=prepare)

    @property
    def is_free(self) -> bool:
        return self._free > 0

    def run(
        self, task: Task, requests: Sequence[HostRequest], watch: Watch
    ) -> "Future[list[Outcome]]":
        """Run a batch in a free place; `leave` must follow once it is done.

        The future raises `Canceled` if the batch's watch canceled it.
        """
        self._free -= 1
        return self._threads.submit(self._run, task, list(requests), watch)

    def leave(self) -> None:
        self._free += 1

    def close(self) -> None:
        """Shut the lane down; batches that still run are lost."""
        self._threads.shutdown(wait=False)

    def _run(self, task: Task, requests: list[HostRequest], watch: Watch) -> list[Outcome]:
        stepper = Stepper(watch.is_canceled, watch.on_step, self._pause, watch.watched)
        return run_isolated(self._pipelines[task], requests, stepper, self._device)


class ForkedLane(Lane):
    """A lane whose places are processes. Must be made while the host has no other threads."""

    def __init__(
        self,
        pipelines: Pipelines,
        width: int,
        pause: Pause = never,
        prepare: Callable[[], None] = lambda: None,
        device: str = "cpu",
        name: str = "",
    ) -> None:
        super().__init__(pipelines, width, pause, device=device)
        self._idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        fork = multiprocessing.get_context("fork")
        self._processes = []
        self._is_closed = False
        self._host = os.getpid()
        for number in range(width):
            ours, theirs = fork.Pipe()
            part = f"{name}-{number}"
            process = fork.Process(target=self._serve, args=(theirs, prepare, part), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._idle.put(ours)

    def close(self) -> None:
        super().close()
        self._is_closed = True
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join(CLOSE_S)

    def _run(self, task: Task, requests: list[HostRequest], watch: Watch) -> list[Outcome]:
        place = self._idle.get()
        try:
            place.send((task, [(vars(r.params), r.image) for r in requests]))
            watch.joined(place.send)
            outcomes = self._outcomes(place, watch)
            watch.joined(None)
        except Exception as e:  # it has died, or the pipe still holds part of a batch
            if self._is_closed:
                raise
            _end(f"a process that runs batches failed: {e!r}")
        self._idle.put(place)
        if outcomes is None:
            raise Canceled
        return outcomes

    def _outcomes(self, place: Connection, watch: Watch) -> list[Outcome] | None:
        """Report a batch's steps; return its outcomes, None if it was canceled."""
        while isinstance(said := place.recv(), tuple):
            watch.on_step(*said)
        outcomes: list[Outcome] | None = said
        return outcomes

    def _serve(self, place: Connection, prepare: Callable[[], None], part: str) -> None:
        """Run batches in a forked process, for as long as the host lives."""
        count_as(part)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the host handles it
        die_with_parent(signal.SIGKILL, self._host)
        prepare()
        while True:
            try:
                said = place.recv()
            except EOFError:
                return
            if isinstance(said, tuple):  # else a notice about a batch that had just ended
                place.send(self._run_here(place, *said))

    def _run_here(
        self, place: Connection, task: Task, packed: Sequence[tuple[dict[str, Any], Any]]
    ) -> list[Outcome] | None:
        """Run a batch; return its outcomes, None if it was canceled.

        Params come as their fields: a model may define their class when it is loaded.
        """
        pipeline = self._pipelines[task]
        requests = [
            HostRequest(pipeline.restored(task.kind, fields), image) for fields, image in packed
        ]
        heard = Heard(place)
        stepper = Stepper(
            heard.is_canceled, lambda *step: place.send(step), self._pause, heard.watched
        )
        try:
            return run_isolated(pipeline, requests, stepper, self._device)
        except Canceled:
            return None


class Heard:
    """The host's notices to a process about the batch that it runs."""

    def __init__(self, place: Connection) -> None:
        self._place = place
        self._watched = NOBODY

    def is_canceled(self) -> bool:
        while self._place.poll():
            if (said := self._place.recv()) == CANCEL:
                return True
            self._watched = said
        return False

    def watched(self) -> Watched:
        return self._watched


def core_lanes(
    pipelines: Pipelines, quiet: Quiet, name: str, prepare: Callable[[], None] = lambda: None
) -> tuple[Lane, Lane]:
    """Return an interactive and a bulk lane: a process for each core, or threads without fork.

    `prepare` is called in each of them; each computes with its core alone.
    """

    def prepare_bulk() -> None:
        prepare()
        if sys.platform == "linux":  # where each thread has its own priority
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BULK_NICE)

    kind = ForkedLane if sys.platform == "linux" else Lane
    if kind is Lane and not all(pipeline.is_concurrent for pipeline in pipelines.values()):
        only = Lane(pipelines, 1, never, prepare, name)
        return only, only
    return (
        kind(pipelines, cores(), never, prepare, name, "interactive"),
        kind(pipelines, cores(), quiet.give_way, prepare_bulk, name, "bulk"),
    )


def _end(why: str) -> NoReturn:
    """End the host; the next one retries all that it runs, one by one."""
    log.critical("%s: this host ends", why)
    os._exit(os.EX_SOFTWARE)
