"""Continuous batches: what is waiting the moment the device is free, up to a largest batch.

A lone request on an idle device waits for nobody. Where several batches run side by side, none
takes more than its share, or some would be large and the others small. Each task has batches
of its own, and the one whose oldest request has waited longest goes first; all requests of a
batch have the same key, which says what a model cannot mix. Interactive requests and bulk ones
wait in lines of their own and run in lanes of their own. A suspect, with which a host has died
before, has the device for itself.
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

SUSPECT_PATIENCE_S = 1.0  # then others wait until the device is free for a suspect
TELL_AGAIN_S = 1.0  # a caller is told again that its requests run, whose deadline begins then
WORN_OUT_AFTER = 3  # single requests in a row for which there was no memory


class Batcher:
    """One device. To be used from one event loop, without awaiting anything but `run`."""

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
        """For how long some batch on the device has taken no step; 0 when there is none."""
        now = time.monotonic()
        return max((now - batch.heard for batch in self._running), default=0.0)

    @property
    def is_worn_out(self) -> bool:
        """Whether there is no memory even for single requests: only a new process may help."""
        return self._out_of_memory >= WORN_OUT_AFTER

    def pipeline(self, task: Task) -> Pipeline:
        """What serves a kind. Raises `InvalidParams` where nothing does."""
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
        """What became of each request, once all of them have run.

        `on_start` is called with how many requests are on the device: when one of these goes
        there, again with one that goes more than a second later, and when others join one that
        was alone. `on_step` is told, now and then, how many steps of how many its batch has done.
        A caller that is canceled leaves the line, and a batch that nobody waits for ends at its
        next step. Where there is an `audience`, some steps come with a preview; it may come and go
        while the requests run. `trace` is the traceparent that its spans belong to.
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
        """Tell all that runs for whom it is to make previews now."""
        for batch in self._running:
            batch.show()

    def _dispatch(self) -> None:
        """Give the device all that it can take now."""
        while (line := self._next()) is not None:
            self._start(line.take())

    def _next(self) -> Line | None:
        """The line that goes first of those that can go now: interactive ones, then by age."""
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
        """Whether the device is this host's; if something waits for it, ask for it."""
        is_wanted = any(line.head() for lines in self._lines for line in lines.values())
        if not self._running and (self._turn.is_up or not is_wanted):
            self._turn.give_back()
        if is_wanted and not self._turn.is_mine:
            self._turn.ask(self._dispatch)
        return self._turn.is_mine and not self._turn.is_up

    def _is_due(self, head: Call, line: Line) -> bool:
        """Whether a batch may go; with a `max_wait_s`, a small one waits for company."""
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
        """All that is on the device is lost with it, so each is told whether it is alone there."""
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
        if error is not None and not is_ended:  # nothing that a request may raise
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
        if tracing.is_on():  # once the answers are on their way
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
    """What those had in the batch who came with a trace."""
    return [
        Share(call.trace, call.since, theirs)
        for (call, *_), theirs in batch.share_out(outcomes)
        if call.trace
    ]
