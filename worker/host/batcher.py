"""Continuous batching: a batch is what waits the moment the device is free, up to a max size.

A lone request on an idle device does not wait. Where several batches run side by side, each takes
at most its share of what waits, so that they are of similar size. Each task has batches of its own,
and the one whose oldest request has waited longest goes first. All requests of a batch have the
same key, which stands for what a model cannot mix. Interactive and bulk requests wait in separate
lines and run in separate lanes. A suspect, which was on the device when a host died, runs there
alone.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter

from crossmodal import tracing
from crossmodal.errors import GpuOutOfMemory, InvalidParams
from crossmodal.kinds.task import Task
from crossmodal.metrics import BATCH_SIZE, BATCH_WAIT, INFERENCE, counting
from crossmodal.models.contract import Canceled
from worker.host.lanes import Lane, Quiet
from worker.host.line import Call, Line, LineBatch, Ran
from worker.host.pipeline import HostRequest, Outcome, Pipeline
from worker.host.spans import Share, record_batch
from worker.host.turn import Always, Turn
from worker.host.watch import Audience, OnStep, no_step

SUSPECT_PATIENCE_S = 1.0  # after this, others wait until the device is free for a suspect
TELL_AGAIN_S = 1.0  # after this, a caller's next batch notifies it again, restarting its timeout
WORN_OUT_AFTER = 3  # single requests in a row that ran out of memory


class Batcher:
    """The batcher of one device. Used from one event loop, which awaits only `run`."""

    def __init__(
        self,
        pipelines: Mapping[Task, Pipeline],
        lanes: tuple[Lane, Lane],
        quiet: Quiet,
        max_batch: int,
        bulk_batch: int,
        max_wait_s: float = 0.0,
        device: str = "cpu",
        turn: Turn | Always | None = None,
    ) -> None:
        self._device = device
        self._turn = turn or Always()
        self._lines = [
            {
                task: Line(task, pipeline, lane, size, is_bulk=is_bulk)
                for task, pipeline in pipelines.items()
            }
            for is_bulk, lane, size in zip(
                (False, True), lanes, (max_batch, bulk_batch), strict=True
            )
        ]
        self._lanes = lanes
        self._quiet = quiet
        self._max_wait_s = max_wait_s
        self._running: set[LineBatch] = set()
        self._out_of_memory = 0

    @property
    def silent_s(self) -> float:
        """The longest time since the last step of a running batch; 0 if none runs."""
        now = time.monotonic()
        return max((now - batch.heard for batch in self._running), default=0.0)

    @property
    def is_worn_out(self) -> bool:
        """Whether even single requests run out of memory: only a new process may help."""
        return self._out_of_memory >= WORN_OUT_AFTER

    def pipeline(self, task: Task) -> Pipeline:
        """Return the pipeline that serves a kind. Raises `InvalidParams` if none does."""
        line = self._lines[False].get(task)
        if line is None:
            raise InvalidParams(f"this model host serves no {task}")
        return line.pipeline

    def close(self) -> None:
        for lane in self._lanes:
            lane.close()
        self._turn.close()

    async def run(
        self,
        task: Task,
        requests: Sequence[HostRequest],
        *,
        alone: bool = False,
        bulk: bool = False,
        on_start: Callable[[int], None] = lambda size: None,
        on_step: OnStep = no_step,
        audience: Audience | None = None,
        trace: str = "",
    ) -> list[Ran]:
        """Return the outcome of each request, once all of them have run.

        `on_start` is called with the number of requests on the device: when some of these go there,
        again when some go more than a second later, and when others join one that was alone.
        `on_step` is called now and then with the steps done by their batch, and their total. A
        canceled call leaves the line, and a batch that no caller waits for ends at its next step.
        While there is an `audience`, some steps come with a preview; it may come and go meanwhile.
        `trace` is the traceparent that the spans belong to.
        """
        if not requests:
            return []
        done: asyncio.Future[list[Ran]] = asyncio.get_running_loop().create_future()
        line = self._lines[bulk][task]
        weights = [line.pipeline.weight(request) for request in requests]
        keys = [line.pipeline.key(request) for request in requests]
        audience = audience or Audience()
        audience.told_to(self._show)
        line.add(Call(requests, weights, keys, done, alone, on_start, on_step, audience, trace))
        self._dispatch()
        try:
            return await done
        finally:
            if done.cancelled():
                self._end_unwanted()

    def _end_unwanted(self) -> None:
        for batch in self._running:
            if not batch.is_wanted:
                batch.watch.cancel()

    def _show(self, _: bool) -> None:
        """Update which previews the running batches make."""
        for batch in self._running:
            batch.show()

    def _dispatch(self) -> None:
        """Start all batches that the device can take now."""
        while (line := self._next()) is not None:
            self._start(line.take())

    def _next(self) -> Line | None:
        """Return the line that goes first of those that can go: interactive ones, then by age."""
        if any(batch.alone for batch in self._running) or not self._has_turn():
            return None
        heads = [
            (is_bulk, head.since, head, line)
            for is_bulk, lines in enumerate(self._lines)
            for line in lines.values()
            if (head := line.head()) is not None
        ]
        patient_since = time.monotonic() - SUSPECT_PATIENCE_S
        if any(head.alone and since < patient_since for _, since, head, _ in heads):
            heads = [found for found in heads if found[2].alone]
        for _, _, head, line in sorted(heads, key=itemgetter(0, 1)):
            if head.alone and not self._running:
                return line
            if not head.alone and line.lane.is_free and self._is_due(head, line):
                return line
        return None

    def _has_turn(self) -> bool:
        """Return whether this host has the device; request it if something waits for it."""
        is_wanted = any(line.head() for lines in self._lines for line in lines.values())
        if not self._running and (self._turn.is_up or not is_wanted):
            self._turn.give_back()
        if is_wanted and not self._turn.is_mine:
            self._turn.ask(self._dispatch)
        return self._turn.is_mine and not self._turn.is_up

    def _is_due(self, head: Call, line: Line) -> bool:
        """Return whether a batch may go; with `max_wait_s`, a small one waits for more requests."""
        left_s = head.since + self._max_wait_s - time.monotonic()
        if left_s <= 0 or line.is_full():
            return True
        asyncio.get_running_loop().call_later(left_s, self._dispatch)
        return False

    def _start(self, batch: LineBatch) -> None:
        self._running.add(batch)
        self._turn.note_used()
        self._tell_sizes(batch)
        if not batch.line.is_bulk:
            self._quiet.end()
        loop = asyncio.get_running_loop()
        batch.watch.on_step = lambda *step: loop.call_soon_threadsafe(batch.note_step, *step)
        batch.show()
        line = batch.line
        future = asyncio.wrap_future(line.lane.run(line.task, batch.requests, batch.watch))
        future.add_done_callback(partial(self._finish, batch))

    def _tell_sizes(self, new: LineBatch) -> None:
        """Notify callers whether they are alone on the device: all there is lost with the host."""
        size = sum(batch.size for batch in self._running)
        now = time.monotonic()
        for batch in self._running:
            for call, *_ in batch.portions:
                is_due = batch is new and now - call.told_at > TELL_AGAIN_S
                if is_due or call.is_alone != (size == 1):
                    call.is_alone, call.told_at = size == 1, now
                    call.on_start(size)

    def _finish(self, batch: LineBatch, future: "asyncio.Future[list[Outcome]]") -> None:
        self._running.remove(batch)
        batch.line.leave(batch)
        if all(other.line.is_bulk for other in self._running):
            self._quiet.begin()
        if future.cancelled():  # as at the end of the loop
            return
        error = future.exception()
        is_ended = isinstance(error, Canceled) and not batch.is_wanted
        if error is not None and not is_ended:  # not an error of a request
            for call, *_ in batch.portions:
                if not call.done.done():
                    call.done.set_exception(error)
        elif error is None:
            self._hand_out(batch, future.result())
        self._dispatch()

    def _hand_out(self, batch: LineBatch, outcomes: list[Outcome]) -> None:
        inference_s = time.monotonic() - batch.started
        with counting():
            self._measure(batch, inference_s)
        for outcome in outcomes:
            lacked = isinstance(outcome, GpuOutOfMemory)
            self._out_of_memory = self._out_of_memory + 1 if lacked else 0
        for (call, first, *_), theirs in batch.share_out(outcomes):
            wait_s = batch.started - call.since
            ran = [Ran(outcome, len(outcomes), wait_s, inference_s) for outcome in theirs]
            call.finish(first, ran)
        if tracing.is_on():  # after the answers are sent
            asyncio.get_running_loop().call_soon(
                record_batch,
                batch.line.name,
                batch.size,
                _shares(batch, outcomes),
                batch.started,
                batch.started + inference_s,
            )

    def _measure(self, batch: LineBatch, inference_s: float) -> None:
        labels = batch.line.name, self._device
        BATCH_SIZE.labels(*labels).observe(batch.size)
        INFERENCE.labels(*labels).observe(inference_s)
        waits = BATCH_WAIT.labels(*labels)
        for call, _, requests, _ in batch.portions:
            for _ in requests:
                waits.observe(batch.started - call.since)


def _shares(batch: LineBatch, outcomes: list[Outcome]) -> list[Share]:
    """Return the shares of the callers that have a trace."""
    return [
        Share(call.trace, call.since, theirs)
        for (call, *_), theirs in batch.share_out(outcomes)
        if call.trace
    ]
