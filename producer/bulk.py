"""Many items at once: sent in messages of a few dozen or hundred, results as they come.

A message is a job whose id follows from the batch's, so that a rerun finds what was sent
before instead of sending it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from crossmodal.errors import (
    IdempotencyConflict,
    InvalidParams,
    JobCanceled,
    QueueFull,
)
from crossmodal.jobs.bulk import MEDIA_TYPE, BulkItem, ItemPacker, join_items
from crossmodal.jobs.message import message_of
from crossmodal.jobs.names import Task, bulk_job_id
from crossmodal.jobs.origin import NOBODY, Origin
from crossmodal.jobs.params import MAX_ITEMS, BulkParams, parse_params, task_of
from crossmodal.jobs.record import Failure, ItemResult, Job, JobState
from crossmodal.parts import finished_parts, read_part
from producer.calls import ClientCalls
from producer.twins import Runs

MESSAGE_S = 3.0  # what a message should take its worker
LEAST, USUAL, MOST = 8, 256, MAX_ITEMS  # items of a message; usual while nobody knows how long
FEW = 64  # at most, of the first messages: a small batch is to be shared among many workers
SMALL_MESSAGES = 16
MAX_BYTES = 8 * 2**20  # of a message's input, unless a single item has more
MOST_FAILED = 1_000  # that are held before they are passed on
AHEAD = 64  # messages that are sent and not read yet
CANCELED = Failure(code="canceled", message="the batch was canceled before this was sent")
FULL_S = 1.0  # how long to wait at most before a full queue is tried again


@dataclass(frozen=True)
class Message:
    """One message of a batch, and the name of each of its items by its place in the batch."""

    job: str
    params: BulkParams
    names: dict[int, str]

    @property
    def task(self) -> Task:
        """The bulk job that it is."""
        return task_of(self.params)


class Packed(NamedTuple):
    """An item that can be sent."""

    task: Task
    place: int
    custom_id: str
    data: bytes


Request = tuple[Task, BulkItem]
"""An item of a batch and its kind: a batch may mix them, a message has one."""
PAUSE = Message("", BulkParams.model_construct(), {})
"""Stands for no message: there are failures to be passed on first."""


class Results(Iterator[ItemResult]):
    """What became of the items of a batch, as it comes.

    `turns` are the same with a None after every few seconds at most: there one can leave them.
    """

    def __init__(self, turns: Iterator[ItemResult | None]) -> None:
        self.turns = turns

    def __next__(self) -> ItemResult:
        return next(found for found in self.turns if found is not None)


class Batch:
    """The items of one batch on their way; iterate over `results` to move it on."""

    def __init__(
        self, runner: Runs, calls: ClientCalls, batch_id: str, origin: Origin = NOBODY
    ) -> None:
        self._run = runner.run
        self._calls = calls
        self._ledger = calls.ledger
        self._origin = origin
        self._batch_id = batch_id
        self._sent: dict[str, Message] = {}
        self._failed: list[ItemResult] = []
        self._wait = self._run(calls.wait([]))

    def results(self, items: Iterable[Request | ItemResult]) -> Results:
        """What became of each item, in any order; `index` is its place among `items`.

        One that has failed already is passed on. No more than 64 messages are on their way at
        once. Raises `IdempotencyConflict` for a batch that was other items before,
        `BrokerUnavailable` and `StorageUnavailable`; the batch goes on without this process, and
        can be taken up again.
        """
        return Results(self._turns(items))

    def _turns(self, items: Iterable[Request | ItemResult]) -> Iterator[ItemResult | None]:
        messages = self._messages(items)
        following = next(messages, None)
        while following is not None or self._sent or self._failed:
            yield from self._failed
            self._failed.clear()
            goes_on = False
            if following is not None and len(self._sent) < AHEAD and self._take(following):
                following = next(messages, None)
                goes_on = following is not None
            if self._sent:
                for job_id in self._run(self._calls.more_ended(self._wait, block=not goes_on)):
                    yield from self._read(self._sent.pop(job_id))
            yield None

    def _messages(self, items: Iterable[Request | ItemResult]) -> Iterator[Message]:
        """Each message, with its input in the store; the items themselves are not kept."""
        number = 0
        most_of = cache(self._max_items)
        for some in _portions(self._packed(items), most_of):
            if not some:
                yield PAUSE
                continue
            task = some[0].task
            data = join_items([item.data for item in some])
            params = BulkParams(
                kind=task.value,  # type: ignore[arg-type]  # an item's task
                input=self._calls.storage.put_input(data, MEDIA_TYPE),
                items=len(some), batch=self._batch_id, number=number, most=most_of(task),
            )  # fmt: skip
            names = {item.place: item.custom_id for item in some}
            yield Message(bulk_job_id(self._batch_id, number), params, names)
            number += 1

    def _max_items(self, task: Task) -> int:
        """How many items a message of this kind may have; it stays so for all of the batch."""
        known = self._run(self._calls.batches.most(self._batch_id, task))
        return known or fitting(self._run(self._calls.queue(task.in_bulk)).mean_item_s)

    def _packed(self, items: Iterable[Request | ItemResult]) -> Iterator[Packed | None]:
        """Items that can be sent; None now and then, for failures that have to be passed on."""
        packer = ItemPacker()
        for place, given in enumerate(items):
            if isinstance(given, ItemResult):
                self._failed.append(given)
            else:
                task, item = given
                try:
                    yield Packed(task.of_items, place, item.custom_id, packer.pack(item))
                    continue
                except InvalidParams as e:
                    failure = Failure.of(e)
                    self._failed.append(
                        ItemResult(index=place, custom_id=item.custom_id, failure=failure)
                    )
            if len(self._failed) >= MOST_FAILED:
                yield None

    def _send(self, message: Message) -> bool:
        """Whether the queue took the message, now or in an earlier run."""
        params = message.params
        try:
            _, is_new = self._run(self._ledger.submit(
                message.job, message.task, params.model_dump_json(), "",
                message=message_of(message.task, message.job, params), batch=params,
                origin=self._origin,
            ))  # fmt: skip
        except JobCanceled:
            return self._drop(message)
        except QueueFull as e:
            if not self._sent:  # nothing of ours is on its way that could be waited for
                time.sleep(min(FULL_S, e.retry_after_s))
            return False
        if not is_new:
            self._check(message)
        self._sent[message.job] = message
        self._wait.add(message.job, is_new=is_new)
        return True

    def _drop(self, message: Message) -> bool:
        self._failed += [
            ItemResult(index=place, custom_id=custom_id, failure=CANCELED)
            for place, custom_id in message.names.items()
        ]
        return True

    def _take(self, message: Message) -> bool:
        return message is PAUSE or self._send(message)

    def _check(self, message: Message) -> None:
        """Raise `IdempotencyConflict` if the job is not about the same items."""
        job = self._run(self._ledger.get(message.job))
        if job.task is not message.task or parse_params(job.task, job.params) != message.params:
            raise IdempotencyConflict(
                f"the batch {self._batch_id!r} was submitted before with other items (message "
                f"{message.params.number} differs): use another id, or the same items in the same "
                "order"
            )

    def _read(self, message: Message) -> Iterator[ItemResult]:
        """The results of a message that has ended; its failure for items that have none."""
        job = self._run(self._ledger.get(message.job))
        storage = self._calls.storage
        parts = finished_parts(storage, job.id) if job.result is None else job.result.parts
        missing = message.names.copy()
        places = list(missing)
        for part in parts:
            for result in read_part(storage, part, places):
                if missing.pop(result.index, None) is not None:
                    yield result
        failure = _why(job) if missing else None
        for place, custom_id in missing.items():
            yield ItemResult(index=place, custom_id=custom_id, failure=failure)


def fitting(item_s: float | None) -> int:
    """How many items a message should have, when one takes a worker so many seconds."""
    if not item_s:
        return USUAL
    return int(min(max(MESSAGE_S / item_s, LEAST), MOST))


@dataclass
class _Portion:
    """What becomes one message."""

    items: list[Packed] = field(default_factory=list)
    size: int = 0

    def add(self, item: Packed) -> None:
        self.items.append(item)
        self.size += len(item.data)


def _portions(
    items: Iterable[Packed | None], most_of: Callable[[Task], int]
) -> Iterator[list[Packed]]:
    """Lists of items of one kind for one message each; they depend on nothing but the items and
    how many a message may have.

    Where `items` pauses there is an empty one, which is no message.
    """
    filling: dict[Task, _Portion] = {}
    before = 0
    for item in items:
        if item is None:
            yield []
            continue
        some, most = filling.setdefault(item.task, _Portion()), most_of(item.task)
        full = min(FEW, most) if before < SMALL_MESSAGES else most
        if some.items and (len(some.items) >= full or some.size + len(item.data) > MAX_BYTES):
            yield filling.pop(item.task).items
            some, before = filling.setdefault(item.task, _Portion()), before + 1
        some.add(item)
    for some in filling.values():
        yield some.items


def _why(job: Job) -> Failure:
    if job.failure is not None and job.state is JobState.FAILED:
        return job.failure
    return Failure(code=job.state, message=f"the message {job.id} was {job.state}")
