"""Batches of many items: sent in bulk messages of up to hundreds, results as they come.

A bulk message is a job whose id derives from the batch's, so that a rerun finds the messages sent
before instead of sending them again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from crossmodal.errors import (
    BlobDamaged,
    IdempotencyConflict,
    InvalidParams,
    JobCanceled,
    QueueFull,
)
from crossmodal.jobs.bulk import MEDIA_TYPE, BulkItem, ItemPacker, join_items
from crossmodal.jobs.calls import Blocking, Pause, Steps, call
from crossmodal.jobs.message import message_of
from crossmodal.jobs.models import KnownModels
from crossmodal.jobs.names import bulk_job_id
from crossmodal.jobs.origin import NOBODY, Origin
from crossmodal.jobs.params import MAX_ITEMS, BulkParams, parse_params, task_of
from crossmodal.jobs.record import Failure, ItemResult, Job, JobState
from crossmodal.jobs.submission import Submission
from crossmodal.kinds.queue import Queue
from crossmodal.kinds.task import Task
from crossmodal.parts import finished_parts, read_part
from producer.following import Following
from producer.waiting import Wait

MESSAGE_S = 3.0  # target run time of a message
LEAST, USUAL, MOST = 1, 256, MAX_ITEMS  # items per message; USUAL if the time per item is unknown
FEW = 64  # max items of the first messages, to spread a small batch over many workers
SMALL_MESSAGES = 16
MAX_BYTES = 8 * 2**20  # max size of a message's input, unless a single item is larger
MOST_FAILED = 1_000  # failures held before they are passed on
AHEAD = 64  # max messages sent and not yet read
CANCELED = Failure(code="canceled", message="the batch was canceled before this was sent")
FULL_S = 1.0  # max wait before a full queue is tried again


@dataclass(frozen=True)
class Message:
    """A bulk message of a batch; `names` maps each item's index in the batch to its custom id."""

    job: str
    params: BulkParams
    names: dict[int, str]

    @property
    def task(self) -> Task:
        """The bulk task that the message runs."""
        return task_of(self.params)

    def failed(self, failure: Failure) -> list[ItemResult]:
        """Return this failure as the result of every item."""
        return [
            ItemResult(index=place, custom_id=custom_id, failure=failure)
            for place, custom_id in self.names.items()
        ]


class Packed(NamedTuple):
    """An item ready to send; `queue` is the interactive queue of its kind and model."""

    queue: Queue
    place: int
    custom_id: str
    data: bytes


Request = tuple[Task, BulkItem]
"""An item of a batch and its kind. A batch may mix kinds and models, a message may not."""
PAUSE = Message("", BulkParams.model_construct(), {})
"""Stands for no message: failures must be passed on first."""


class Batch:
    """The submission of one batch, advanced by calls of `turn`.

    At most 64 messages are in flight at once. An abandoned batch can be resumed; its sent
    messages go on.
    """

    def __init__(
        self,
        calls: Following,
        batch_id: str,
        items: Iterable[Request | ItemResult],
        origin: Origin = NOBODY,
    ) -> None:
        self._calls = calls
        self._ledger = calls.ledger
        self._batch_id = batch_id
        self._items = items
        self._origin = origin
        self._known = KnownModels()
        self._wait: Wait | None = None
        self._messages: Iterator[Message] = iter(())
        self._following: Message | None = None
        self._sent: dict[str, Message] = {}
        self._ended: list[str] = []  # ids of sent messages that have ended and are not yet read
        self._failed: list[ItemResult] = []

    @property
    def is_done(self) -> bool:
        """Whether every item's result was returned."""
        if self._wait is None:
            return False
        return not (self._following or self._sent or self._failed)

    @call
    def turn(self) -> Steps[list[ItemResult]]:
        """Return the next results, at once or after a few seconds; may be none.

        In any order; `index` is an item's position in the batch. Items given as failures are passed
        on. Raises `IdempotencyConflict` for a batch id that had other items before,
        `BrokerUnavailable` and `StorageUnavailable`.
        """
        wait = self._wait
        if wait is None:
            wait = yield from self._begin()
        if self._failed:
            failed, self._failed = self._failed, []
            return failed
        if self._ended:
            return (yield from self._read(self._sent.pop(self._ended.pop(0))))
        goes_on = (yield from self._send_next(wait)) and self._following is not None
        if self._sent:
            self._ended = yield from self._calls.more_ended(wait, block=not goes_on)
        return []

    @call
    def _begin(self) -> Steps[Wait]:
        wait = yield from self._calls.wait([])
        self._known = yield from self._calls.models()
        self._messages = self._made((yield from self._limits()))
        yield from self._advance()
        self._wait = wait
        return wait

    @call
    def _limits(self) -> Steps[dict[Queue, int]]:
        """Return the max items per message of each queue, fixed for the whole batch."""
        queues = [queue for queue in self._known.queues if queue.task.is_bulk]
        found = yield from self._calls.ledger.queues([str(queue) for queue in queues])
        wanted = {
            queue.of_items: fitting(status.mean_item_s or self._known.item_s(queue))
            for queue, status in zip(queues, found, strict=True)
        }
        return (yield from self._calls.ledger.limits(self._batch_id, wanted))

    @call
    def _advance(self) -> Steps[None]:
        self._following = yield Blocking(lambda: next(self._messages, None))

    @call
    def _send_next(self, wait: Wait) -> Steps[bool]:
        """Send the next message if possible. Returns whether it was sent."""
        message = self._following
        if message is None or len(self._sent) >= AHEAD:
            return False
        if message is not PAUSE and not (yield from self._send(message, wait)):
            return False
        yield from self._advance()
        return True

    def _made(self, max_items: Mapping[Queue, int]) -> Iterator[Message]:
        """Yield each message once its input is in the object store; items are not kept."""
        number = 0
        for some in _portions(self._packed(), max_items):
            if not some:
                yield PAUSE
                continue
            queue = some[0].queue
            data = join_items([item.data for item in some])
            params = BulkParams(
                kind=queue.task.kind.name,
                model=queue.model,
                input=self._calls.storage.put_input(data, MEDIA_TYPE),
                items=len(some),
                batch=self._batch_id,
                number=number,
                most=max_items[queue],
            )
            names = {item.place: item.custom_id for item in some}
            yield Message(bulk_job_id(self._batch_id, number), params, names)
            number += 1

    def _packed(self) -> Iterator[Packed | None]:
        """Yield items ready to send, and None whenever many failures must be passed on."""
        packer = ItemPacker()
        for place, given in enumerate(self._items):
            if isinstance(given, ItemResult):
                self._failed.append(given)
            else:
                task, item = given
                try:
                    queue = self._known.queue(task.of_items, item.params)
                    yield Packed(queue, place, item.custom_id, packer.pack(item))
                    continue
                except InvalidParams as e:
                    failure = Failure.of(e)
                    self._failed.append(
                        ItemResult(index=place, custom_id=item.custom_id, failure=failure)
                    )
            if len(self._failed) >= MOST_FAILED:
                yield None

    @call
    def _send(self, message: Message, wait: Wait) -> Steps[bool]:
        """Submit a message. Returns False if the queue is full, True also if it was canceled."""
        params = message.params
        try:
            _, is_new = yield from self._ledger.submit(
                Submission(
                    message.job,
                    message.task,
                    params.model_dump_json(),
                    "",
                    model=params.model,
                    message=message_of(message.job, params, params.model),
                    batch=params,
                    origin=self._origin,
                )
            )
        except JobCanceled:
            self._failed += message.failed(CANCELED)
            return True
        except QueueFull as e:
            if not self._sent:  # no message is in flight that could be waited for
                yield Pause(min(FULL_S, e.retry_after_s))
            return False
        if not is_new:
            yield from self._check(message)
        self._sent[message.job] = message
        wait.add(message.job, is_new=is_new)
        return True

    @call
    def _check(self, message: Message) -> Steps[None]:
        """Raise `IdempotencyConflict` if the job was submitted with other items."""
        job = yield from self._ledger.get(message.job)
        if job.task != message.task or parse_params(job.task, job.params) != message.params:
            raise IdempotencyConflict(
                f"the batch {self._batch_id!r} was submitted before with other items (message "
                f"{message.params.number} differs): use another id, or the same items in the same "
                "order"
            )

    @call
    def _read(self, message: Message) -> Steps[list[ItemResult]]:
        """Return the results of an ended message; its failure for items without one."""
        job = yield from self._ledger.get(message.job)
        found: list[ItemResult] = yield Blocking(lambda: self._results(message, job))
        return found

    def _results(self, message: Message, job: Job) -> list[ItemResult]:
        storage, why = self._calls.storage, _why(job)
        parts = job.result.parts if job.result else finished_parts(storage, job.id, job.created_at)
        missing, places = message.names.copy(), list(message.names)
        found: list[ItemResult] = []
        for part in parts:
            try:
                results = read_part(storage, part, places)
            except BlobDamaged as e:  # by a power cut, say; other parts are intact
                why = Failure.of(e) if job.result else why
                continue
            found += [one for one in results if missing.pop(one.index, None) is not None]
        lost = dataclasses.replace(message, names=missing)
        return found + (lost.failed(why) if missing else [])


def fitting(item_s: float | None) -> int:
    """Return how many items a message should have at `item_s` seconds each."""
    if not item_s:
        return USUAL
    return int(min(max(MESSAGE_S / item_s, LEAST), MOST))


@dataclass
class _Portion:
    """The items of one message, and their size in bytes."""

    items: list[Packed] = field(default_factory=list)
    size: int = 0

    def add(self, item: Packed) -> None:
        self.items.append(item)
        self.size += len(item.data)


def _portions(
    items: Iterable[Packed | None], max_items: Mapping[Queue, int]
) -> Iterator[list[Packed]]:
    """Yield the items of each message: all of one queue, within its limits.

    The split depends only on the items and `max_items`. A None in `items` yields an empty list,
    which is no message.
    """
    filling: dict[Queue, _Portion] = {}
    before = 0
    for item in items:
        if item is None:
            yield []
            continue
        some, most = filling.setdefault(item.queue, _Portion()), max_items[item.queue]
        full = min(FEW, most) if before < SMALL_MESSAGES else most
        if some.items and (len(some.items) >= full or some.size + len(item.data) > MAX_BYTES):
            yield filling.pop(item.queue).items
            some, before = filling.setdefault(item.queue, _Portion()), before + 1
        some.add(item)
    for some in filling.values():
        yield some.items


def _why(job: Job) -> Failure:
    if job.failure is not None and job.state is JobState.FAILED:
        return job.failure
    return Failure(code=job.state, message=f"the message {job.id} was {job.state}")
