"""Batches that came over HTTP as a file: the record of each, and who runs it.

The file lies in the object store. Whoever runs the batch holds a lease on it; when that ends
another goes on, and what was sent is not sent again. Whether it is canceled the ledger knows.
"""

import time

from pydantic import BaseModel, ValidationError

from crossmodal.errors import CrossmodalError, JobNotFound, TooManyQueued
from crossmodal.jobs.batches import Batches
from crossmodal.jobs.calls import Atomic, Script, Steps, call, redis
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import RESULTS, http_batch_key, is_job_id
from crossmodal.jobs.record import Failure
from crossmodal.kinds.task import Task
from crossmodal.settings import Settings

MEDIA_TYPE = "application/jsonl"
MAX_UNFINISHED = 100  # batches of one owner
MAX_LISTED = 10_000  # ... that are not forgotten yet
MAX_RUN_S = 7 * 86_400.0  # for which one that runs is listed, beside its retention


class Source(BaseModel):
    """What a client of OpenAI's API has said of its batch."""

    file: str
    endpoint: str
    metadata: dict[str, str] | None = None


class HttpBatch(BaseModel):
    """A batch as its file was taken; `completed` and `failed` are known at its end.

    `task` is that of lines without a url, and of all lines unless the file `is_mixed`. One of a
    client of OpenAI's API has a `source`.
    """

    id: str
    owner: str
    max_queued: int | None = None
    task: Task
    is_mixed: bool = False
    total: int
    created_at: float
    ended_at: float | None = None
    source: Source | None = None
    is_canceled: bool = False
    is_done: bool = False
    completed: int = 0
    failed: int = 0
    failure: Failure | None = None


class UnreadableBatch(CrossmodalError):
    """The record of a batch has not the form that this version gives it."""


def input_of(batch_id: str) -> str:
    """Where the batch's requests lie."""
    return f"{RESULTS}/{batch_id}/input.jsonl"


def output_of(batch_id: str) -> str:
    """Where its results lie, once it is done."""
    return f"{RESULTS}/{batch_id}/output.jsonl"


class HttpBatches:
    """The record of each batch, and which of them are not done; every method makes a call."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.key_prefix
        self._retention_s = settings.retention_s
        self._lease_s = settings.lease_s
        self._open = f"{self._prefix}:http-batches"
        self._ledger = JobLedger(settings)
        self._batches = Batches(settings, self._ledger)

    @call
    def check_room(self, owner: str) -> Steps[None]:
        """Raise `TooManyQueued` when the owner has as many batches as may be."""
        unfinished = yield redis.scard(self._own(owner))
        if unfinished >= MAX_UNFINISHED:
            whose = " of this API key" if owner else ""
            raise TooManyQueued(
                f"{MAX_UNFINISHED} batches{whose} are not done, which is as many as may be: wait "
                "for one, or cancel it"
            )

    @call
    def open(self, batch: HttpBatch) -> Steps[None]:
        """Have the batch run. Raises `TooManyQueued`."""
        yield from self.check_room(batch.owner)
        listed_s = self._retention_s + MAX_RUN_S
        yield Atomic(
            [
                redis.set(self._key(batch.id), batch.model_dump_json()),
                redis.hset(self._open, batch.id, batch.owner),
                redis.sadd(self._own(batch.owner), batch.id),
                redis.zadd(self._all(batch.owner), {batch.id: batch.created_at}),
                redis.zremrangebyscore(self._all(batch.owner), "-inf", time.time() - listed_s),
                redis.zremrangebyrank(self._all(batch.owner), 0, -MAX_LISTED - 1),
                redis.expire(self._all(batch.owner), int(listed_s)),
            ]
        )

    @call
    def of(self, owner: str) -> Steps[list[str]]:
        """The ids of an owner's batches, the latest first; some may be gone."""
        return list((yield redis.zrevrange(self._all(owner), 0, -1)))

    @call
    def get(self, batch_id: str) -> Steps[HttpBatch]:
        """One batch. Raises `JobNotFound`, or `UnreadableBatch`."""
        if not is_job_id(batch_id):  # it would be another key
            raise JobNotFound(f"there is no batch {batch_id[:140]!r}")
        text = yield redis.get(self._key(batch_id))
        if text is None:
            raise JobNotFound(f"there is no batch {batch_id[:140]!r}")
        try:
            found = HttpBatch.model_validate_json(text)
        except ValidationError as e:
            raise UnreadableBatch(f"batch {batch_id} was recorded by another version") from e
        is_canceled = yield from self.is_canceled(batch_id)
        return found.model_copy(update={"is_canceled": is_canceled})

    @call
    def is_canceled(self, batch_id: str) -> Steps[bool]:
        """Whether nobody wants more of it."""
        return (yield from self._batches.is_canceled(batch_id))

    @call
    def cancel(self, batch_id: str) -> Steps[None]:
        """Cancel what was sent of it and has not ended, and have no more sent."""
        yield from self._ledger.cancel_batch(batch_id, ahead=True)

    @call
    def close(self, batch: HttpBatch) -> Steps[None]:
        """Record how the batch has ended."""
        ended = batch.model_copy(update={"ended_at": time.time()})
        yield Atomic(
            [
                redis.set(self._key(batch.id), ended.model_dump_json(), ex=self._retention_s),
                redis.hdel(self._open, batch.id),
                redis.srem(self._own(batch.owner), batch.id),
            ]
        )

    @call
    def forget(self, batch_id: str) -> Steps[None]:
        """Take a batch off the list whose record somebody has deleted."""
        owner = yield redis.hget(self._open, batch_id)
        yield Atomic(
            [redis.hdel(self._open, batch_id), redis.srem(self._own(owner or ""), batch_id)]
        )

    @call
    def unfinished(self) -> Steps[dict[str, str]]:
        """The owner of each batch that is not done, the oldest first."""
        return dict(sorted((yield redis.hgetall(self._open)).items()))

    @call
    def lease(self, batch_id: str, who: str) -> Steps[bool]:
        """Whether the batch is `who`'s to run, for another `lease_s`."""
        return bool((yield self._leased(batch_id, who, self._lease_s)))

    @call
    def release(self, batch_id: str, who: str) -> Steps[None]:
        """Let others run the batch, unless one does already."""
        yield self._leased(batch_id, who, 0)

    def _leased(self, batch_id: str, who: str, lease_s: float) -> Script:
        key = f"{self._key(batch_id)}:lease"
        return Script("lease_batch", (key,), (self._prefix, batch_id, who, round(1_000 * lease_s)))

    def _all(self, owner: str) -> str:
        return f"{self._open}-of:{owner}"

    def _own(self, owner: str) -> str:
        return f"{self._open}:{owner}"

    def _key(self, batch_id: str) -> str:
        return http_batch_key(self._prefix, batch_id)
