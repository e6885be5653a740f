"""Batches that came over HTTP: run to their end by any gateway, whichever took them.

The file lies in the object store and a hash in Redis says how far it is. A gateway that feeds a
batch holds a lease on it; when it dies another goes on, and what was sent is not sent again.
"""

import logging
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from pydantic import BaseModel, ValidationError

from crossmodal.errors import (
    BlobNotFound,
    BrokerUnavailable,
    CrossmodalError,
    IdempotencyConflict,
    JobNotFound,
    TooManyQueued,
)
from crossmodal.jobs.connection import broker_errors
from crossmodal.jobs.names import RESULTS, Task, http_batch_key, is_job_id, new_job_id
from crossmodal.jobs.origin import Origin
from crossmodal.jobs.record import Failure
from producer.client import Client
from producer.gateway.shapes import failure_view
from producer.jsonl import BatchFile, result_line

log = logging.getLogger(__name__)

LEASE_S = 20
LOOK_S = 2.0
UNREAD_S = 60.0  # until a batch is looked at again whose record another version has written
AT_ONCE, AT_ONCE_OF_ONE = 8, 2  # batches that one gateway feeds, and those of one owner
MEDIA_TYPE = "application/jsonl"
MOST_UNFINISHED = 100  # batches of one owner


class BatchRecord(BaseModel):
    """A batch as its file was taken; `completed` and `failed` are known at its end.

    `task` is that of lines without a url, and of all lines unless the file `is_mixed`.
    """

    id: str
    owner: str
    max_queued: int | None = None
    task: Task
    is_mixed: bool = False
    total: int
    created_at: float
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


class BatchRecords:
    """The hash of each batch, and which of them are not done. May raise `BrokerUnavailable`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._prefix = client.settings.key_prefix
        self._retention_s = client.settings.retention_s
        self._open = f"{self._prefix}:http-batches"

    def check_room(self, owner: str) -> None:
        """Raise `TooManyQueued` when the owner has as many batches as may be."""
        with broker_errors(self._client.settings):
            unfinished = self._client.redis.scard(self._own(owner))
        if unfinished >= MOST_UNFINISHED:
            whose = " of this API key" if owner else ""
            raise TooManyQueued(
                f"{MOST_UNFINISHED} batches{whose} are not done, which is as many as may be: wait "
                "for one, or cancel it"
            )

    def open(self, record: BatchRecord) -> None:
        """Have the batch run. Raises `TooManyQueued`."""
        self.check_room(record.owner)
        with broker_errors(self._client.settings):
            pipe = self._client.redis.pipeline(transaction=True)
            pipe.set(self._key(record.id), record.model_dump_json())
            pipe.hset(self._open, record.id, record.owner)
            pipe.sadd(self._own(record.owner), record.id)
            pipe.execute()

    def get(self, batch_id: str) -> BatchRecord:
        """One batch. Raises `JobNotFound`, or `UnreadableBatch`."""
        if not is_job_id(batch_id):  # it would be another key
            raise JobNotFound(f"there is no batch {batch_id[:140]!r}")
        with broker_errors(self._client.settings):
            text = self._client.redis.get(self._key(batch_id))
        if text is None:
            raise JobNotFound(f"there is no batch {batch_id[:140]!r}")
        try:
            found = BatchRecord.model_validate_json(text)
        except ValidationError as e:
            raise UnreadableBatch(
                f"batch {batch_id} was noted by another version of the gateway"
            ) from e
        return found.model_copy(update={"is_canceled": self.is_canceled(batch_id)})

    def is_canceled(self, batch_id: str) -> bool:
        """Whether somebody wants no more of it."""
        with broker_errors(self._client.settings):
            return bool(self._client.redis.exists(self._canceled(batch_id)))

    def cancel(self, batch_id: str) -> None:
        """Have what was not sent not be sent, by whoever feeds the batch."""
        with broker_errors(self._client.settings):
            self._client.redis.set(self._canceled(batch_id), 1)
            if self._client.redis.hget(self._open, batch_id) is None:  # it has ended meanwhile
                self._client.redis.expire(self._canceled(batch_id), self._retention_s)

    def close(self, record: BatchRecord) -> None:
        """Note how the batch has ended."""
        with broker_errors(self._client.settings):
            pipe = self._client.redis.pipeline(transaction=True)
            pipe.set(self._key(record.id), record.model_dump_json(), ex=self._retention_s)
            pipe.expire(self._canceled(record.id), self._retention_s)
            pipe.hdel(self._open, record.id)
            pipe.srem(self._own(record.owner), record.id)
            pipe.execute()

    def forget(self, batch_id: str) -> None:
        """Take a batch off the list whose record somebody has deleted."""
        with broker_errors(self._client.settings):
            owner = self._client.redis.hget(self._open, batch_id)
            pipe = self._client.redis.pipeline(transaction=True)
            pipe.hdel(self._open, batch_id)
            pipe.srem(self._own(owner or ""), batch_id)
            pipe.delete(self._canceled(batch_id))
            pipe.execute()

    def unfinished(self) -> dict[str, str]:
        """The owner of each batch that is not done, the oldest first."""
        with broker_errors(self._client.settings):
            return dict(sorted(self._client.redis.hgetall(self._open).items()))

    def lease(self, batch_id: str, who: str) -> bool:
        """Whether the batch is `who`'s to feed, for another while."""
        key = f"{self._key(batch_id)}:lease"
        with broker_errors(self._client.settings):
            if self._client.redis.set(key, who, nx=True, ex=LEASE_S):
                return True
            if self._client.redis.get(key) != who:
                return False
            return bool(self._client.redis.expire(key, LEASE_S))

    def release(self, batch_id: str) -> None:
        with broker_errors(self._client.settings):
            self._client.redis.delete(f"{self._key(batch_id)}:lease")

    def _canceled(self, batch_id: str) -> str:
        return f"{self._key(batch_id)}:canceled"

    def _own(self, owner: str) -> str:
        return f"{self._open}:{owner}"

    def _key(self, batch_id: str) -> str:
        return http_batch_key(self._prefix, batch_id)


class Feeder(Thread):
    """Feeds batches that nobody feeds; ends with the process, between any two items."""

    def __init__(self, client: Client) -> None:
        super().__init__(name="feeder", daemon=True)
        self._client = client
        self._records = BatchRecords(client)
        self._me = new_job_id()
        self._running: dict[str, Thread] = {}
        self._canceled: dict[str, bool] = {}  # and whether all that was sent is canceled, too
        self._unread_until: dict[str, float] = {}
        self._news = Event()
        self._is_stopping = False

    def wake(self) -> None:
        """Look for a new batch at once."""
        self._news.set()

    def stop(self) -> None:
        """Give up what is being fed; another gateway, or this one's successor, goes on."""
        self._is_stopping = True
        self._news.set()
        for batch_id in list(self._running):
            try:
                self._records.release(batch_id)
            except CrossmodalError as e:  # then its lease runs out
                log.warning("batch %s: %s", batch_id, e)

    def run(self) -> None:
        is_out = False
        while not self._is_stopping:
            try:
                self._look()
                is_out = False
            except CrossmodalError as e:
                if not is_out:
                    log.warning("batches are not looked for: %s", e)
                is_out = True
            except Exception:  # without this thread no batch is fed any more
                log.exception("an error of ours in looking for batches")
            self._news.wait(LOOK_S)
            self._news.clear()

    def _look(self) -> None:
        self._running = {i: thread for i, thread in self._running.items() if thread.is_alive()}
        for batch_id in self._running:
            self._records.lease(batch_id, self._me)
            if not self._canceled.get(batch_id) and self._records.is_canceled(batch_id):
                self._cancel(batch_id)
        unfinished = self._records.unfinished()
        busy = Counter(unfinished[i] for i in self._running if i in unfinished)
        for batch_id, owner in unfinished.items():
            if len(self._running) >= AT_ONCE or self._is_stopping:
                return
            if batch_id in self._running or busy[owner] >= AT_ONCE_OF_ONE:
                continue
            if self._unread_until.get(batch_id, 0.0) > time.monotonic():
                continue
            if self._records.lease(batch_id, self._me):
                busy[owner] += 1
                self._running[batch_id] = Thread(target=self._feed, args=(batch_id,), daemon=True)
                self._running[batch_id].start()

    def _cancel(self, batch_id: str) -> None:
        """Have no message sent from now on, then cancel those that were."""
        self._canceled.setdefault(batch_id, False)
        with suppress(JobNotFound):  # nothing of it has been sent
            self._client.cancel_batch(batch_id)
        self._canceled[batch_id] = True

    def _feed(self, batch_id: str) -> None:
        """Run a batch to its end, or leave it for another try if that may help."""
        try:
            record = self._found(batch_id)
            if record is not None:
                self._records.close(self._ended(record))
        except (CrossmodalError, OSError) as e:  # such as a disk that is full
            log.warning("batch %s waits, and is taken up again: %s", batch_id, e)
            self._news.wait(LOOK_S)
        self._canceled.pop(batch_id, None)

    def _found(self, batch_id: str) -> BatchRecord | None:
        """The record of a batch that can be fed."""
        try:
            return self._records.get(batch_id)
        except JobNotFound:
            log.error("batch %s cannot be run: its record is gone", batch_id)
            self._records.forget(batch_id)
        except UnreadableBatch as e:
            log.error("batch %s is left to others: %s", batch_id, e)
            self._unread_until[batch_id] = time.monotonic() + UNREAD_S
            self._records.release(batch_id)
        return None

    def _ended(self, record: BatchRecord) -> BatchRecord:
        """The batch's record when it has been run, or given up. Raises what may pass."""
        try:
            if record.is_canceled:
                self._cancel(record.id)
            return self._run(record)
        except OSError:
            raise
        except CrossmodalError as e:
            if e.retryable or isinstance(e, BrokerUnavailable):
                raise
            log.error("batch %s is given up: %s", record.id, e)
            failure = _told(e)
        except Exception as e:
            log.exception("an error of ours in batch %s", record.id)
            failure = _told(e)
        self._cancel(record.id)
        return record.model_copy(update={"is_done": True, "failure": failure})

    def _run(self, record: BatchRecord) -> BatchRecord:
        """Send what is not sent, gather what is done, and store it as the output."""
        counts = {"completed": 0, "failed": 0}
        with tempfile.TemporaryDirectory(prefix="crossmodal-batch-") as folder:
            source, made = Path(folder, "input.jsonl"), Path(folder, "output.jsonl")
            self._fetch(record.id, source)
            file = BatchFile(
                source, record.task.of_items, record.id, self._client.settings.max_image_bytes,
                is_ours=False,
            )  # fmt: skip
            results = self._client.map_items(
                file.items(), batch_id=record.id,
                origin=Origin(record.owner, record.max_queued),
                is_canceled=lambda: record.id in self._canceled,
            )  # fmt: skip
            with made.open("w", encoding="utf-8") as output:
                for result in results:
                    counts["failed" if result.failure else "completed"] += 1
                    shown = result.model_copy(update={"failure": failure_view(result.failure)})
                    output.write(result_line(record.id, shown) + "\n")
            self._client.storage.put_file(output_of(record.id), made, MEDIA_TYPE)
        return record.model_copy(update=counts | {"is_done": True})

    def _fetch(self, batch_id: str, target: Path) -> None:
        """Write the batch's file, of which no more than a piece is ever in memory."""
        storage = self._client.storage
        found = storage.head(input_of(batch_id))
        if found is None:
            raise BlobNotFound(f"there is nothing at {input_of(batch_id)!r} in {storage.url}")
        with target.open("wb") as file:
            for piece in storage.stream(found.key, 0, found.size):
                file.write(piece)


def _told(error: Exception) -> Failure:
    """What the batch's owner is told; errors name files and addresses, which only the log does."""
    if isinstance(error, IdempotencyConflict):
        return Failure.of(error)
    if isinstance(error, BlobNotFound):
        return Failure(code=error.code, message="a file of the batch is not in the store any more")
    code = error.code if isinstance(error, CrossmodalError) else CrossmodalError.code
    return Failure(code=code, message="an error of ours: the gateway's log says more")
