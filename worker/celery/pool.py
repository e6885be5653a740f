"""The pool of a Celery worker whose tasks are coroutines of one event loop.

A task runs in two halves. Its coroutine, `work`, runs on a loop in a thread of its own. The outcome
goes back to the thread of Celery's event loop, the hub, where Celery's tracer calls `run`, the
other half. So retries, results, signals, events and acknowledgements are Celery's own code, and
nothing of Celery or kombu is used outside the hub's thread.
"""

import asyncio
import logging
import os
import select
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import Task
from celery.concurrency.base import BasePool
from celery.worker import state
from kombu.asynchronous import get_event_loop, set_event_loop

from worker.celery.handover import Bell, Handover
from worker.celery.lanes import Lane, Lanes
from worker.celery.loop import LoopThread

log = logging.getLogger(__name__)

COLD_S = 5.0  # max wait for canceled jobs to end, in a cold shutdown
CLOSE_S = 5.0
POLL_MS = 200
MAX_TIMERS = 100  # per turn of the hub


class NoCoroutine(Exception):
    """A task that this pool cannot run, because it is no `CoroutineTask`."""


class CoroutineTask(Task, ABC):
    """A task whose `work` runs on the pool's loop, and whose `run` only passes on its outcome."""

    abstract = True
    outcome: Any = None  # what `work` returned or raised, for `run`
    run_s = 0.0  # how long `work` took

    @abstractmethod
    async def work(self, request: Mapping[str, Any]) -> Any:
        """Do the task's work; `request` has the message's headers, `args` and `kwargs`."""

    async def close(self) -> None:
        """Close what `work` has opened; called on the loop when it stops."""

    def conclude(self, outcome: Any) -> Any:
        """Return or raise the task's result, given what `work` returned; runs within Celery."""
        return outcome

    def run(self, *_: Any, **__: Any) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.conclude(self.outcome)


@dataclass(slots=True, eq=False)
class Job:
    """A request in the pool's hands; `outcome` is what its coroutine returned or raised."""

    number: int
    tag: str
    lane: Lane
    task: CoroutineTask
    request: Mapping[str, Any]
    trace: Callable[[], tuple[int, Any, float]]
    on_accepted: Callable[[int, float], None]
    on_ended: Callable[[tuple[int, Any, float]], None]
    on_error: Callable[[ExceptionInfo], None]
    begun_at: float = 0.0
    running: "asyncio.Task[Any] | None" = None
    outcome: Any = None
    is_canceled: bool = False
    has_ended: bool = False

    @property
    def id(self) -> str:
        return str(self.request["id"])


class CoroutinePool(BasePool):
    """A pool that runs as many jobs of each lane as its limit allows; others wait here.

    Once `on_accepted` is called, Celery keeps a job in its lists until another callback is.
    Whatever fails in between, one of them is called and the job's room is freed.
    """

    signal_safe = False
    body_can_be_buffer = True
    task_join_will_block = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lanes: Lanes = self.app.lanes
        self.loop = LoopThread()
        self._bell = Bell()
        self._numbers = count(1)
        self._jobs: dict[int, Job] = {}
        self._waiting: defaultdict[Lane, deque[Job]] = defaultdict(deque)
        self._running: Counter[Lane] = Counter()
        self._begun: Handover[Job] = Handover(lambda: self.loop.call(self._start_begun))
        self._ended: Handover[Job] = Handover(self._bell.ring)
        self._is_stopping = False
        self._idle: set[int] = set()

    @property
    def tags(self) -> set[str]:
        """The delivery tags of all jobs in this pool."""
        return {job.tag for job in self._jobs.values()}

    def goes_on(self) -> bool:
        """Return False if a job that is due to run was not running at the last call, nor is now."""
        before, self._idle = (
            self._idle,
            {
                number
                for number, job in self._jobs.items()
                if job.running is None and (job.begun_at or not self._running[job.lane])
            },
        )
        return not before & self._idle

    @property
    def running_ids(self) -> set[str]:
        """The ids of the jobs that run on the loop. Safe to read from the loop's thread."""
        return {job.id for job in list(self._jobs.values()) if job.running is not None}

    @property
    def num_processes(self) -> int:
        """How many jobs may run at once; the name is Celery's."""
        return sum(self.lanes.limits)

    def _get_info(self) -> dict[str, Any]:
        interactive, bulk = self.lanes.limits
        info: dict[str, Any] = super()._get_info()
        return info | {
            "max-concurrency": interactive,
            "bulk-concurrency": bulk,
            "processes": [os.getpid()],
            "running": sum(self._running.values()),
            "waiting": sum(map(len, self._waiting.values())),
        }

    # Called by Celery, in the hub's thread

    def on_start(self) -> None:
        self.lanes.limit(self.limit)
        for task in self.app.tasks.values():
            if isinstance(task, CoroutineTask):
                self.loop.at_end(task.close)
        self.loop.start()

    def register_with_event_loop(self, hub: Any) -> None:
        """Register with the hub; called again after each lost connection, which resets it.

        kombu then also forgets the current hub, without which acknowledgements are not batched. And
        it fires ten timers in a turn of up to a second: with thousands of messages due at once, all
        else would wait behind them.
        """
        set_event_loop(hub)
        hub.fire_timers = partial(type(hub).fire_timers, hub, max_timers=MAX_TIMERS)
        hub.add_reader(self._bell.fd, self._conclude_ended)

    def on_apply(
        self, target: Callable[..., Any], args: Any = (), kwargs: Any = None, **callbacks: Any
    ) -> None:
        """Take a request; `args` begin with its task's name, its id and its headers."""
        try:
            job = self._make_job(target, args, callbacks)
        except Exception:  # noqa: BLE001 - Celery has counted it and awaits a callback
            callbacks["error_callback"](ExceptionInfo())
            return
        self._jobs[job.number] = job
        job.lane.tags.add(job.tag)
        self._waiting[job.lane].append(job)
        self._begin_waiting(job.lane)

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Cancel the coroutine of a job; `pid` is the number that `on_accepted` was called with."""
        job = self._jobs.get(pid)
        if job is not None:
            self.loop.call(_cancel, job)

    def on_stop(self) -> None:
        """Finish what is in hand; Celery has left the hub's loop and no longer consumes.

        On SIGQUIT Celery calls this in the signal handler, at any point of the code: jobs that it
        canceled are awaited later, by `on_terminate` or by the interrupted call.
        """
        if state.should_terminate or self._is_stopping:
            return
        self._is_stopping = True
        self._drain()
        self.loop.stop(CLOSE_S)

    def on_terminate(self) -> None:
        """Cancel what is in hand; its messages are requeued when the connection closes."""
        self._is_stopping = True
        self._cancel_all()
        self.loop.stop(CLOSE_S)

    # From request to coroutine and back

    def _make_job(self, target: Callable[..., Any], args: Any, callbacks: Any) -> Job:
        name, _, request = args[:3]
        task = self.app.tasks[name]
        if not isinstance(task, CoroutineTask):
            raise NoCoroutine(f"{name} is not a coroutine task: this worker runs only those")
        queue = request["delivery_info"]["routing_key"] or ""
        return Job(
            next(self._numbers),
            request["properties"]["delivery_tag"],
            self.lanes.of(queue),
            task,
            request,
            lambda: target(*args),
            callbacks["accept_callback"],
            callbacks["callback"],
            callbacks["error_callback"],
        )

    def _begin_waiting(self, lane: Lane) -> None:
        waiting = self._waiting[lane]
        while waiting and self._running[lane] < lane.limit:
            job = waiting.popleft()
            self._running[lane] += 1
            job.begun_at = time.monotonic()
            try:
                job.on_accepted(job.number, job.begun_at)
                self._begun.put(job)
            except Exception as e:  # noqa: BLE001 - Celery's code may raise anything
                job.outcome = e
                self._ended.put(job)

    def _start_begun(self) -> None:
        """Start the coroutines of all jobs that have begun since. Runs on the loop."""
        for job in self._begun.take():
            if job.is_canceled:
                self._ended.put(job)
                continue
            try:
                job.running = self.loop.loop.create_task(job.task.work(job.request))
            except Exception as e:  # noqa: BLE001 - the others must start, too
                job.outcome = e
                self._ended.put(job)
            else:
                job.running.add_done_callback(partial(self._note_end, job))

    def _note_end(self, job: Job, done: "asyncio.Task[Any]") -> None:
        """Pass the outcome of a coroutine to the hub's thread. Runs on the loop."""
        if done.cancelled():
            job.outcome = None if job.is_canceled else RuntimeError("its coroutine was canceled")
        elif (error := done.exception()) is not None:
            # Other BaseExceptions would end the worker, and Celery re-raises a MemoryError.
            is_fit = isinstance(error, Exception) and not isinstance(error, MemoryError)
            job.is_canceled = False
            job.outcome = error if is_fit else RuntimeError(f"its coroutine raised {error!r}")
        else:
            job.is_canceled = False  # it ended before it could be canceled
            job.outcome = done.result()
        job.running, job.has_ended = None, True
        self._ended.put(job)

    def _conclude_ended(self) -> None:
        self._bell.hush()
        for job in self._ended.take():
            del self._jobs[job.number]
            job.lane.tags.discard(job.tag)
            self._running[job.lane] -= 1
            if not job.is_canceled:  # else Celery has reported its end
                self._conclude(job)
            self._begin_waiting(job.lane)

    def _conclude(self, job: Job) -> None:
        job.task.outcome, job.task.run_s = job.outcome, time.monotonic() - job.begun_at
        try:
            is_failed, value, _ = job.trace()
            job.on_ended((is_failed, value, job.task.run_s))
        except Exception:
            log.exception("job %s: Celery failed to conclude it", job.id)
            with suppress(Exception):  # Celery may have forgotten the request by now
                job.on_error(ExceptionInfo())
        finally:
            job.task.outcome = None

    # The end

    def _drain(self) -> None:
        """Conclude jobs as they end, and run the hub meanwhile, until none is left."""
        hub = get_event_loop()
        while self._jobs and hub is not None and not state.should_terminate:
            try:
                hub.run_once()
            except Exception as e:  # noqa: BLE001 - jobs that end now are acknowledged at the end
                log.warning("lost the broker while draining: %s", e)
                hub = None
        while self._jobs and not state.should_terminate:
            self._wait()
        if self._jobs:
            self._cancel_all()

    def _cancel_all(self) -> None:
        for waiting in self._waiting.values():
            for job in waiting:
                del self._jobs[job.number]
                job.lane.tags.discard(job.tag)
            waiting.clear()
        for number in list(self._jobs):
            self.terminate_job(number)
        deadline = time.monotonic() + COLD_S
        while self._jobs and time.monotonic() < deadline:
            self._wait()

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._bell.fd, select.POLLIN)
        poll.poll(POLL_MS)
        self._conclude_ended()


def _cancel(job: Job) -> None:
    """Cancel a coroutine, or prevent its start; one that has ended stays as it is.

    Runs on the loop.
    """
    if not job.has_ended:
        job.is_canceled = True
        if job.running is not None:
            job.running.cancel()
