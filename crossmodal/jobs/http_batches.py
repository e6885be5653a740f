"""Records and leases of batch jobs submitted over HTTP as a file.

The file is in the object store. A batch runner holds a lease on the batch; when the lease ends,
another runner continues, without sending a message twice. The ledger records the cancellation.
"""

import time

from pydantic import BaseModel, ValidationError

from crossmodal.errors import CrossmodalError, JobNotFound, TooManyQueued
from crossmodal.jobs.batches import Batches
from crossmodal.jobs.calls import Atomic, Steps, call, redis
from crossmodal.jobs.leases import Leases
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import RESULTS, http_batch_key, is_job_id
from crossmodal.jobs.record import Failure
from crossmodal.kinds.task import Task
from crossmodal.settings import Settings

MEDIA_TYPE = "application/jsonl"
MAX_UNFINISHED = 100  # batches per owner
MAX_LISTED = 10_000  # batches per owner in its list
MAX_RUN_S = 7 * 86_400.0  # how long a running batch stays listed, on top of the retention


class Source(BaseModel):
    """The fields of a batch that only OpenAI's API has."""

    file: str
    endpoint: str
    metadata: dict[str, str] | None = None


class HttpBatch(BaseModel):
    """The record of a batch job; `completed` and `failed` are set when it ends.

    `task` is the task of lines without a url, and of all lines unless the file `is_mixed`. A batch
    submitted through OpenAI's API has a `source`.
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
    """The error for a batch record that this version cannot read."""


def input_of(batch_id: str) -> str:
    """Return the key of a batch's input in the object store."""
    return f"{RESULTS}/{batch_id}/input.jsonl"


def output_of(batch_id: str) -> str:
    """Return the key of a batch's results, which exist once it is done."""
    return f"{RESULTS}/{batch_id}/output.jsonl"


class HttpBatches:
    """The store of batch records and of unfinished batches; every method returns a call."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.key_prefix
        self._retention_s = settings.retention_s
        self._leases = Leases(settings)
        self._open = f"{self._prefix}:http-batches"
        self._ledger = JobLedger(settings)
        self._batches = Batches(settings, self._ledger)

    @call
    def check_room(self, owner: str) -> Steps[None]:
        """Raise `TooManyQueued` if the owner has the max number of unfinished batches."""
        unfinished = yield redis.scard(self._own(owner))
        if unfinished >= MAX_UNFINISHED:
            whose = " of this API key" if owner else ""
            raise TooManyQueued(
                f"{MAX_UNFINISHED} batches{whose} are unfinished, the max: wait for one to end, "
                "or cancel one"
            )

    @call
    def open(self, batch: HttpBatch) -> Steps[None]:
        """Record a batch for batch runners to run. Raises `TooManyQueued`."""
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
        """Return the ids of an owner's batches, latest first; some may have expired."""
        return list((yield redis.zrevrange(self._all(owner), 0, -1)))

    @call
    def get(self, batch_id: str) -> Steps[HttpBatch]:
        """Return a batch. Raises `JobNotFound` or `UnreadableBatch`."""
        if not is_job_id(batch_id):  # it could form another key
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
        """Return whether the batch was canceled."""
        return (yield from self._batches.is_canceled(batch_id))

    @call
    def cancel(self, batch_id: str) -> Steps[None]:
        """Cancel the batch's messages that have not ended, and accept no more."""
        yield from self._ledger.cancel_batch(batch_id, ahead=True)

    @call
    def close(self, batch: HttpBatch) -> Steps[None]:
        """Record the end of the batch."""
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
        """Remove a batch whose record was deleted from the unfinished ones."""
        owner = yield redis.hget(self._open, batch_id)
        yield Atomic(
            [redis.hdel(self._open, batch_id), redis.srem(self._own(owner or ""), batch_id)]
        )

    @call
    def unfinished(self) -> Steps[dict[str, str]]:
        """Return the owner of each unfinished batch by id, oldest first."""
        return dict(sorted((yield redis.hgetall(self._open)).items()))

    @call
    def lease(self, batch_id: str, who: str) -> Steps[bool]:
        """Acquire or renew the lease of `who` on the batch; return whether `who` holds it."""
        return (yield from self._leases.hold(self._lease_key(batch_id), who))

    @call
    def release(self, batch_id: str, who: str) -> Steps[None]:
        """End the lease of `who` on the batch, if `who` holds it."""
        yield from self._leases.end(self._lease_key(batch_id), who)

    def _lease_key(self, batch_id: str) -> str:
        return f"{self._key(batch_id)}:lease"

    def _all(self, owner: str) -> str:
        return f"{self._open}-of:{owner}"

    def _own(self, owner: str) -> str:
        return f"{self._open}:{owner}"

    def _key(self, batch_id: str) -> str:
        return http_batch_key(self._prefix, batch_id)
