"""Dynamic batches: what is waiting the moment the device is free, up to `max_batch`.

A lone request on an idle device waits for nobody. Each task has batches of its own, and
the one whose oldest request has waited longest goes first.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from crossmodal.errors import CrossmodalError, InferenceFailed
from crossmodal.jobs.names import Task
from crossmodal.pipelines.base import Outcome, Pipeline, Request

log = logging.getLogger(__name__)


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


class Batcher:
    """One device, one batch at a time, in a thread of its own."""

    def __init__(self, pipelines: Mapping[Task, Pipeline], max_batch: int) -> None:
        self._pipelines = pipelines
        self._max_batch = max_batch
        self._queues: dict[Task, deque[_Waiting]] = {task: deque() for task in pipelines}
        self._arrived = asyncio.Event()
        self._device = ThreadPoolExecutor(1, thread_name_prefix="device")

    async def run(self, task: Task, request: Request) -> Ran:
        """The outcome of `request`, once a batch with it has run."""
        waiting = _Waiting(request, asyncio.get_running_loop().create_future(), time.monotonic())
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
            weight += self._pipelines[task].weight(queue[0].request)
            if batch and weight > self._max_batch:
                break
            waiting = queue.popleft()
            if not waiting.done.cancelled():
                batch.append(waiting)
        return batch

    async def _run_batch(self, task: Task, batch: list[_Waiting]) -> None:
        if not batch:
            return
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        outcomes = await loop.run_in_executor(
            self._device, run_isolated, self._pipelines[task], [w.request for w in batch]
        )
        inference_s = time.monotonic() - started
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if not waiting.done.cancelled():
                ran = Ran(outcome, len(batch), started - waiting.since, inference_s)
                waiting.done.set_result(ran)


def run_isolated(pipeline: Pipeline, requests: list[Request]) -> list[Outcome]:
    """Run a batch; if that raises, each request alone, so that a bad one harms only itself."""
    try:
        outcomes = pipeline.run(requests)
        if len(outcomes) != len(requests):
            raise RuntimeError(f"{len(outcomes)} outcomes for {len(requests)} requests")
    except Exception as e:  # a model may raise anything; it becomes an outcome
        if len(requests) == 1:
            log.exception("the model failed on one request")
            return [e if isinstance(e, CrossmodalError) else _failed(e)]
        return [run_isolated(pipeline, [request])[0] for request in requests]
    return outcomes


def _failed(error: Exception) -> InferenceFailed:
    return InferenceFailed(f"the model failed on this request: {type(error).__name__}: {error}")
