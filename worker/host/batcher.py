"""Dynamic batches: what is waiting the moment the device is free, up to `max_batch`.

A lone request on an idle device waits for nobody. Each task has batches of its own, and
the one whose oldest request has waited longest goes first. A suspect, with which a host has
died before, is in a batch of its own.
"""

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from crossmodal.errors import CrossmodalError, GpuOutOfMemory, InferenceFailed
from crossmodal.jobs.names import Task
from crossmodal.pipelines.base import Outcome, Pipeline, Request
from worker.host.memory import free_memory, is_broken, is_out_of_memory

log = logging.getLogger(__name__)

WORN_OUT_AFTER = 3  # single requests in a row for which there was no memory


@dataclass(frozen=True)
class Ran:
    """What became of one request, and of the batch it was in (seconds)."""

    outcome: Outcome
    batch_size: int
    wait_s: float
    inference_s: float


@dataclass(frozen=True)
class _Waiting:
    request: Request
    done: "asyncio.Future[Ran]"
    since: float
    alone: bool
    on_start: Callable[[int], None]


class Batcher:
    """One device, one batch at a time, in a thread of its own."""

    def __init__(self, pipelines: Mapping[Task, Pipeline], max_batch: int) -> None:
        self._pipelines = pipelines
        self._max_batch = max_batch
        self._queues: dict[Task, deque[_Waiting]] = {task: deque() for task in pipelines}
        self._arrived = asyncio.Event()
        self._device = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._started: float | None = None
        self._out_of_memory = 0

    @property
    def running_s(self) -> float:
        """For how long the batch that is on the device has been running; 0 when there is none."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    @property
    def is_worn_out(self) -> bool:
        """Whether there is no memory even for single requests: only a new process may help."""
        return self._out_of_memory >= WORN_OUT_AFTER

    async def run(
        self,
        task: Task,
        request: Request,
        *,
        alone: bool = False,
        on_start: Callable[[int], None] = lambda size: None,
    ) -> Ran:
        """The outcome of `request`, once a batch with it has run.

        `on_start` is called with the size of that batch when it goes to the device. A caller
        that is canceled before leaves the queue.
        """
        done = asyncio.get_running_loop().create_future()
        waiting = _Waiting(request, done, time.monotonic(), alone, on_start)
        self._queues[task].append(waiting)
        self._arrived.set()
        return await waiting.done

    async def serve(self) -> None:
        """Run batches until canceled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while (task := self._longest_waiting()) is not None:
                await self._run_batch(task, self._take(task))

    def _longest_waiting(self) -> Task | None:
        heads = [(queue[0].since, task) for task, queue in self._queues.items() if queue]
        return min(heads)[1] if heads else None

    def _take(self, task: Task) -> list[_Waiting]:
        """The next batch: whole requests, as many as fit, but always one."""
        queue, batch, weight = self._queues[task], list[_Waiting](), 0
        while queue:
            if queue[0].done.cancelled():
                queue.popleft()
                continue
            weight += self._pipelines[task].weight(queue[0].request)
            if batch and (weight > self._max_batch or batch[0].alone or queue[0].alone):
                break
            batch.append(queue.popleft())
        return batch

    async def _run_batch(self, task: Task, batch: list[_Waiting]) -> None:
        if not batch:
            return
        started = self._started = time.monotonic()
        for waiting in batch:
            waiting.on_start(len(batch))
        outcomes = await asyncio.get_running_loop().run_in_executor(
            self._device, run_isolated, self._pipelines[task], [w.request for w in batch]
        )
        self._started = None
        self._note_memory(outcomes)
        inference_s = time.monotonic() - started
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if not waiting.done.cancelled():
                ran = Ran(outcome, len(batch), started - waiting.since, inference_s)
                waiting.done.set_result(ran)

    def _note_memory(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            lacked = isinstance(outcome, GpuOutOfMemory)
            self._out_of_memory = self._out_of_memory + 1 if lacked else 0


def run_isolated(pipeline: Pipeline, requests: list[Request]) -> list[Outcome]:
    """Run a batch so that what is wrong with one request harms only itself.

    If the batch raises, each request runs alone; if the device has no memory for it, in halves.
    """
    outcomes = _run(pipeline, requests)
    if not isinstance(outcomes, CrossmodalError):
        return outcomes
    # Only now that the exception is gone, and with it what its frames held, is there memory.
    if isinstance(outcomes, GpuOutOfMemory):
        free_memory()
    if len(requests) == 1:
        return [outcomes]
    size = (len(requests) + 1) // 2 if isinstance(outcomes, GpuOutOfMemory) else 1
    parts = [requests[i : i + size] for i in range(0, len(requests), size)]
    return [outcome for part in parts for outcome in run_isolated(pipeline, part)]


def _run(pipeline: Pipeline, requests: list[Request]) -> list[Outcome] | CrossmodalError:
    try:
        outcomes = pipeline.run(requests)
        if len(outcomes) != len(requests):
            raise RuntimeError(f"{len(outcomes)} outcomes for {len(requests)} requests")
    except CrossmodalError as e:
        return e.with_traceback(None)
    except Exception as e:  # a model may raise anything; it becomes an outcome
        if is_broken(e):
            log.critical("the device is broken, this host ends: %s", e)
            os._exit(os.EX_UNAVAILABLE)  # so that each request of the batch is tried alone
        if is_out_of_memory(e):
            log.warning("no memory for a batch of %d: %s", len(requests), e)
            return GpuOutOfMemory(f"the device has no memory for this request alone: {e}")
        if len(requests) == 1:
            log.exception("the model failed on one request")
        return InferenceFailed(f"the model failed on this request: {type(e).__name__}: {e}")
    return outcomes
