"""Lines of calls: requests of one task, interactive or bulk, and the batches taken from them."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from crossmodal.kinds.task import Task
from worker.host.lanes import Lane
from worker.host.pipeline import HostRequest, Outcome, Pipeline
from worker.host.watch import NONE, Audience, OnStep, Previews, Watch, no_step


class Ran(NamedTuple):
    """The outcome of one request, and the size and times (seconds) of its batch."""

    outcome: Outcome
    batch_size: int
    wait_s: float
    inference_s: float


@dataclass(eq=False)
class Call:
    """The requests of a caller that waits for all of them; they may run in several batches."""

    requests: Sequence[HostRequest]
    weights: Sequence[int]
    keys: Sequence[Hashable]
    done: "asyncio.Future[list[Ran]]"
    alone: bool
    on_start: Callable[[int], None]
    on_step: OnStep = no_step
    audience: Audience = field(default_factory=Audience)
    trace: str = ""
    since: float = field(default_factory=time.monotonic)
    next: int = 0
    is_alone: bool | None = None  # on the device, as last notified
    told_at: float = 0.0
    ran: dict[int, list[Ran]] = field(default_factory=dict)  # by the place of the first request

    @property
    def next_key(self) -> Hashable:
        """The key that a batch must share with the next request."""
        return self.keys[self.next]

    def take(self, key: Hashable, most: int, *, one: bool) -> "Portion":
        """Take the next requests of a key that weigh at most `most`; with `one`, at least one."""
        first, weight = self.next, 0
        while self.next < len(self.weights) and self.next_key == key:
            if not one and weight + self.weights[self.next] > most:
                break
            weight += self.weights[self.next]
            self.next += 1
            one = False
        return Portion(self, first, self.requests[first : self.next], weight)

    def finish(self, first: int, ran: list[Ran]) -> None:
        """Note the outcomes of the requests from `first` on; with the last, resolve the call."""
        self.ran[first] = ran
        if sum(map(len, self.ran.values())) == len(self.requests) and not self.done.done():
            self.done.set_result([r for at in sorted(self.ran) for r in self.ran[at]])


class Portion(NamedTuple):
    """The part of a call in a batch: its requests from the place `first` on."""

    call: Call
    first: int
    requests: Sequence[HostRequest]
    weight: int


@dataclass(eq=False)
class LineBatch:
    """Requests that are on the device together; `heard` is the time of the last step."""

    line: "Line"
    portions: list[Portion]
    watch: Watch = field(default_factory=Watch)
    started: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)

    @property
    def alone(self) -> bool:
        return self.portions[0].call.alone

    @property
    def size(self) -> int:
        return sum(len(portion.requests) for portion in self.portions)

    @property
    def is_wanted(self) -> bool:
        """Whether any caller waits for it."""
        return not all(portion.call.done.done() for portion in self.portions)

    def note_step(self, done: int, of: int, previews: Previews = NONE) -> None:
        """Report a step to all waiting callers, each with the first preview of its requests."""
        self.heard = time.monotonic()
        for call, places in self._places():
            shown = [previews[at] for at in places if at in previews]
            if not call.done.done():
                call.on_step(done, of, *shown[:1])

    def show(self) -> None:
        """Request previews for the calls that have an audience."""
        watched = (places for call, places in self._places() if call.audience.is_there)
        self.watch.show(frozenset(at for places in watched for at in places))

    def _places(self) -> Iterator[tuple[Call, range]]:
        """Yield each call with the places of its requests in the batch."""
        first = 0
        for portion in self.portions:
            yield portion.call, range(first, first := first + len(portion.requests))

    @property
    def requests(self) -> list[HostRequest]:
        return [request for portion in self.portions for request in portion.requests]

    def share_out(self, outcomes: Iterable[Outcome]) -> Iterator[tuple[Portion, list[Outcome]]]:
        """Yield each portion with its part of the batch's outcomes."""
        left = iter(outcomes)
        for portion in self.portions:
            yield portion, list(islice(left, len(portion.requests)))


class Line:
    """The calls of one task, interactive or bulk, oldest first, and the lane that they run in."""

    def __init__(
        self, task: Task, pipeline: Pipeline, lane: Lane, max_batch: int, *, is_bulk: bool
    ) -> None:
        self.task = task
        self.is_bulk = is_bulk
        self.name = task.in_bulk if is_bulk else task
        self.pipeline = pipeline
        self.lane = lane
        self._max_batch = min(max_batch, pipeline.max_batch or max_batch)
        self.calls: deque[Call] = deque()
        self._weight = 0  # of all that waits here or runs in the lane

    def add(self, call: Call) -> None:
        self.calls.append(call)
        self._weight += sum(call.weights)

    def leave(self, batch: LineBatch) -> None:
        """Note that the batch has run."""
        self._weight -= sum(portion.weight for portion in batch.portions)
        self.lane.leave()

    def head(self) -> Call | None:
        """Return the oldest call whose caller still waits."""
        while self.calls and self.calls[0].done.done():
            gone = self.calls.popleft()
            self._weight -= sum(gone.weights[gone.next :])
        return self.calls[0] if self.calls else None

    def is_full(self) -> bool:
        """Return whether enough waits for the largest batch."""
        weight = 0
        for call in self.calls:
            weight += sum(call.weights[call.next :])
            if weight >= self._max_batch:
                return True
        return False

    def take(self) -> LineBatch:
        """Return the next batch: requests with the oldest one's key that fit, at least one."""
        head = self.calls[0]
        if head.alone:
            return LineBatch(self, [self._portion(head, head.next_key, 0, one=True)])
        key = head.next_key
        portions: list[Portion] = []
        left = min(self._max_batch, -(-self._weight // self.lane.width))
        for call in list(self.calls):
            if call.alone or call.done.done():
                continue
            portion = self._portion(call, key, left, one=not portions)
            if portion.requests:
                portions.append(portion)
            left -= portion.weight
            if call.next < len(call.requests) and call.next_key == key:  # there is no more room
                break
        return LineBatch(self, portions)

    def _portion(self, call: Call, key: Hashable, most: int, *, one: bool) -> Portion:
        portion = call.take(key, most, one=one)
        if call.next == len(call.requests):
            self.calls.remove(call)
        return portion
