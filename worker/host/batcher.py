"""Continuous batches: what is waiting the moment the device is free, up to a largest batch.

All requests of a batch have the same key, which says what a model cannot mix.

A lone request on an idle device waits for nobody. Where several batches run side by side, none
takes more than its share, or some would be large and the others small. Each task has batches
of its own, and the one whose oldest request has waited longest goes first. Interactive
requests and bulk ones wait in lines of their own and run in lanes of their own. A suspect,
with which a host has died before, has the device for itself.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import NamedTuple

from crossmodal import tracing
from crossmodal.errors import GpuOutOfMemory, InvalidParams
from crossmodal.kinds.task import Task
from crossmodal.metrics import BATCH_SIZE, BATCH_WAIT, INFERENCE, counting
from crossmodal.models.contract import Canceled
from worker.host.lanes import Lane, Quiet
from worker.host.pipeline import HostRequest, Outcome, Pipeline
from worker.host.spans import Share, record_batch
from worker.host.watch import OnStep, Watch, no_step

SUSPECT_PATIENCE_S = 1.0  # then others wait until the device is free for a suspect
TELL_AGAIN_S = 1.0  # a caller is told again that its requests run, whose deadline begins then
WORN_OUT_AFTER = 3  # single requests in a row for which there was no memory


class Ran(NamedTuple):
    """What became of one request, and of the batch it was in (seconds)."""

    outcome: Outcome
    batch_size: int
    wait_s: float
    inference_s: float


@dataclass(eq=False)
class _Call:
    """Requests of one who waits for all of them; they may run in several batches."""

    requests: Sequence[HostRequest]
    weights: Sequence[int]
    keys: Sequence[Hashable]
    done: "asyncio.Future[list[Ran]]"
    alone: bool
    on_start: Callable[[int], None]
    on_step: OnStep = no_step
    trace: str = ""
    since: float = field(default_factory=time.monotonic)
    next: int = 0
    is_alone: bool | None = None  # on the device, by what it was last told
    told_at: float = 0.0
    ran: dict[int, list[Ran]] = field(default_factory=dict)  # by the first request's place

    @property
    def next_key(self) -> Hashable:
        """What a batch must have in common with the next request."""
        return self.keys[self.next]

    def take(self, key: Hashable, most: int, *, one: bool) -> "_Portion":
        """Its next requests with that key that weigh no more than `most`; `one` in any case."""
        first, weight = self.next, 0
        while self.next < len(self.weights) and self.next_key == key:
            if not one and weight + self.weights[self.next] > most:
                break
            weight += self.weights[self.next]
            self.next += 1
            one = False
        return _Portion(self, first, self.requests[first : self.next], weight)

    def finish(self, first: int, ran: list[Ran]) -> None:
        """Note what became of the requests from `first` on; whoever waits is told of the last."""
        self.ran[first] = ran
        if sum(map(len, self.ran.values())) == len(self.requests) and not self.done.done():
            self.done.set_result([r for at in sorted(self.ran) for r in self.ran[at]])


class _Portion(NamedTuple):
    """What a call has in a batch, from the place `first` of its requests on."""

    call: _Call
    first: int
    requests: Sequence[HostRequest]
    weight: int


@dataclass(eq=False)
class _Batch:
    line: "_Line"
    portions: list[_Portion]
    watch: Watch = field(default_factory=Watch)
    started: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)  # when it took its last step

    @property
    def alone(self) -> bool:
        return self.portions[0].call.alone

    @property
    def size(self) -> int:
        return sum(len(portion.requests) for portion in self.portions)

    @property
    def is_wanted(self) -> bool:
        """Whether anybody waits for it."""
        return not all(portion.call.done.done() for portion in self.portions)

    def note_step(self, done: int, of: int) -> None:
        """Tell all callers that have not gone."""
        self.heard = time.monotonic()
        for portion in self.portions:
            if not portion.call.done.done():
                portion.call.on_step(done, of)

    @property
    def requests(self) -> list[HostRequest]:
        return [request for portion in self.portions for request in portion.requests]

    def share_out(self, outcomes: Iterable[Outcome]) -> Iterator[tuple[_Portion, list[Outcome]]]:
        """Each portion with its part of the batch's outcomes."""
        left = iter(outcomes)
        for portion in self.portions:
            yield portion, list(islice(left, len(portion.requests)))


class _Line:
    """Calls of one task and one urgency, the oldest first, and the lane that they run in."""

    def __init__(
        self, task: Task, pipeline: Pipeline, lane: Lane, max_batch: int, *, is_bulk: bool
    ) -> None:
        self.task = task
        self.is_bulk = is_bulk
        self.name = task.in_bulk if is_bulk else task
        self.pipeline = pipeline
        self.lane = lane
        self._max_batch = min(max_batch, pipeline.max_batch or max_batch)
        self.calls: deque[_Call] = deque()
        self._weight = 0  # of what waits here and what runs in the lane

    def add(self, call: _Call) -> None:
        self.calls.append(call)
        self._weight += sum(call.weights)

    def leave(self, batch: _Batch) -> None:
        """Note that the batch has run."""
        self._weight -= sum(portion.weight for portion in batch.portions)
        self.lane.leave()

    def head(self) -> _Call | None:
        """The oldest call that somebody still waits for."""
        while self.calls and self.calls[0].done.done():
            gone = self.calls.popleft()
            self._weight -= sum(gone.weights[gone.next :])
        return self.calls[0] if self.calls else None

    def is_full(self) -> bool:
        """Whether there is enough for the largest batch."""
        weight = 0
        for call in self.calls:
            weight += sum(call.weights[call.next :])
            if weight >= self._max_batch:
                return True
        return False

    def take(self) -> _Batch:
        """The next batch: whole requests like the oldest one, as many as fit, but always one."""
        head = self.calls[0]
        if head.alone:
            return _Batch(self, [self._portion(head, head.next_key, 0, one=True)])
        key = head.next_key
        portions: list[_Portion] = []
        left = min(self._max_batch, -(-self._weight // self.lane.width))
        for call in list(self.calls):
            if call.alone or call.done.done() or call.next_key != key:
                continue
            portion = self._portion(call, key, left, one=not portions)
            if portion.requests:
                portions.append(portion)
            left -= portion.weight
            if call.next < len(call.requests) and call.next_key == key:  # there is no more room
                break
        return _Batch(self, portions)

    def _portion(self, call: _Call, key: Hashable, most: int, *, one: bool) -> _Portion:
        portion = call.take(key, most, one=one)
        if call.next == len(call.requests):
            self.calls.remove(call)
        return portion


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
    ) -> None:
        self._device = device
        self._lines = [
            {task: _Line(task, pipeline, lane, size, is_bulk=is_bulk)
             for task, pipeline in pipelines.items()}
            for is_bulk, lane, size in zip((False, True), lanes, (max_batch, bulk_batch),
                                           strict=True)
        ]  # fmt: skip
        self._lanes = lanes
        self._quiet = quiet
        self._max_wait_s = max_wait_s
        self._running: set[_Batch] = set()
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
            raise InvalidParams(f"no model of this host serves {task}")
        return line.pipeline

    def close(self) -> None:
        for lane in self._lanes:
            lane.close()

    async def run(
        self,
        task: Task,
        requests: Sequence[HostRequest],
        *,
        alone: bool = False,
        bulk: bool = False,
        on_start: Callable[[int], None] = lambda size: None,
        on_step: OnStep = no_step,
        trace: str = "",
    ) -> list[Ran]:
        """What became of each request, once all of them have run.

        `on_start` is called with how many requests are on the device: when one of these goes
        there, again with one that goes more than a second later, and when others join one that
        was alone. `on_step` is told, now and then, how many steps of how many its batch has done.
        A caller that is canceled leaves the line, and a batch that nobody waits for ends at its
        next step. `trace` is the traceparent that its spans belong to.
        """
        if not requests:
            return []
        done: asyncio.Future[list[Ran]] = asyncio.get_running_loop().create_future()
        line = self._lines[bulk][task]
        weights = [line.pipeline.weight(request) for request in requests]
        keys = [line.pipeline.key(request) for request in requests]
        line.add(_Call(requests, weights, keys, done, alone, on_start, on_step, trace))
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

    def _dispatch(self) -> None:
        """Give the device all that it can take now."""
        while (line := self._next()) is not None:
            self._start(line.take())

    def _next(self) -> _Line | None:
        """The line that goes first of those that can go now: interactive ones, then by age."""
        if any(batch.alone for batch in self._running):
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

    def _is_due(self, head: _Call, line: _Line) -> bool:
        """Whether a batch may go; with a `max_wait_s`, a small one waits for company."""
        left_s = head.since + self._max_wait_s - time.monotonic()
        if left_s <= 0 or line.is_full():
            return True
        asyncio.get_running_loop().call_later(left_s, self._dispatch)
        return False

    def _start(self, batch: _Batch) -> None:
        self._running.add(batch)
        self._tell_sizes(batch)
        if not batch.line.is_bulk:
            self._quiet.end()
        loop = asyncio.get_running_loop()
        batch.watch.on_step = lambda *step: loop.call_soon_threadsafe(batch.note_step, *step)
        line = batch.line
        future = asyncio.wrap_future(line.lane.run(line.task, batch.requests, batch.watch))
        future.add_done_callback(partial(self._finish, batch))

    def _tell_sizes(self, new: _Batch) -> None:
        """All that is on the device is lost with it, so each is told whether it is alone there."""
        size = sum(batch.size for batch in self._running)
        now = time.monotonic()
        for batch in self._running:
            for call, *_ in batch.portions:
                is_due = batch is new and now - call.told_at > TELL_AGAIN_S
                if is_due or call.is_alone != (size == 1):
                    call.is_alone, call.told_at = size == 1, now
                    call.on_start(size)

    def _finish(self, batch: _Batch, future: "asyncio.Future[list[Outcome]]") -> None:
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

    def _hand_out(self, batch: _Batch, outcomes: list[Outcome]) -> None:
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
                record_batch, batch.line.name, batch.size, _shares(batch, outcomes),
                batch.started, batch.started + inference_s,
            )  # fmt: skip

    def _measure(self, batch: _Batch, inference_s: float) -> None:
        labels = batch.line.name, self._device
        BATCH_SIZE.labels(*labels).observe(batch.size)
        INFERENCE.labels(*labels).observe(inference_s)
        waits = BATCH_WAIT.labels(*labels)
        for call, _, requests, _ in batch.portions:
            for _ in requests:
                waits.observe(batch.started - call.since)


def _shares(batch: _Batch, outcomes: list[Outcome]) -> list[Share]:
    """What those had in the batch who came with a trace."""
    return [
        Share(call.trace, call.since, theirs)
        for (call, *_), theirs in batch.share_out(outcomes)
        if call.trace
    ]
