"""Runs one batch job: reads its file, sends its messages and collects its results."""

import logging
from collections.abc import Iterator
from pathlib import Path

from crossmodal.errors import (
    BlobNotFound,
    BrokerUnavailable,
    CrossmodalError,
    IdempotencyConflict,
    JobNotFound,
)
from crossmodal.jobs.http_batches import MEDIA_TYPE, HttpBatch, input_of, output_of
from crossmodal.jobs.origin import Origin
from crossmodal.jobs.record import Failure, ItemResult
from crossmodal.scratch import scratch_folder
from producer.batches.jsonl import BatchFile, result_line
from producer.client import Client
from producer.told import failure_view

log = logging.getLogger(__name__)


class BatchLeft(Exception):
    """The run has left the batch job, unfinished, to another process."""


class BatchRun:
    """The run of one batch job in a thread, until it ends or is left to another process.

    A batch job that another process has begun is resumed: no message is sent again.
    """

    def __init__(self, client: Client, batch: HttpBatch) -> None:
        self._client = client
        self._batch = batch
        self._is_left = False

    def leave(self) -> None:
        """Make `to_end` raise `BatchLeft` within seconds. Any thread may call this."""
        self._is_left = True

    def to_end(self) -> HttpBatch:
        """Run the batch job; return its record once it ended or failed. Raises retryable errors."""
        try:
            return self._run()
        except (BatchLeft, JobNotFound, OSError):
            raise  # a message whose record Redis has lost is sent again by the next run
        except CrossmodalError as e:
            if e.retryable or isinstance(e, BrokerUnavailable):
                raise
            log.error("batch %s failed: %s", self._batch.id, e)
            failure = _told(e)
        except Exception as e:
            log.exception("internal error in batch %s", self._batch.id)
            failure = _told(e)
        return self._batch.model_copy(update={"is_done": True, "failure": failure})

    def _run(self) -> HttpBatch:
        """Send what is not yet sent, collect the results, and store them as the output."""
        batch, counts = self._batch, {"completed": 0, "failed": 0}
        with scratch_folder("batch") as folder:
            source, made = folder / "input.jsonl", folder / "output.jsonl"
            self._fetch(source)
            with made.open("w", encoding="utf-8") as output:
                for result in self._results(source):
                    counts["failed" if result.failure else "completed"] += 1
                    shown = result.model_copy(update={"failure": failure_view(result.failure)})
                    output.write(result_line(batch.id, shown) + "\n")
            self._client.storage.put_file(output_of(batch.id), made, MEDIA_TYPE)
        return batch.model_copy(update=counts | {"is_done": True})

    def _results(self, source: Path) -> Iterator[ItemResult]:
        """Yield the results of items; the batch job can also be left while there are none."""
        batch = self._batch
        file = BatchFile(
            source,
            batch.task.of_items,
            batch.id,
            self._client.settings.max_image_bytes,
            self._client.models,
            is_ours=False,
        )
        origin = Origin(batch.owner, batch.max_queued)
        sent = self._client.calls.map_items(file.items(), batch_id=batch.id, origin=origin)
        while not sent.is_done:
            if self._is_left:
                raise BatchLeft
            yield from self._client.run(sent.turn())

    def _fetch(self, target: Path) -> None:
        """Write the batch job's file to disk, with only one piece in memory at a time."""
        storage, source = self._client.storage, input_of(self._batch.id)
        found = storage.head(source)
        if found is None:
            raise BlobNotFound(f"there is nothing at {source!r} in {storage.url}")
        with target.open("wb") as file:
            for piece in storage.stream(found.key, 0, found.size):
                file.write(piece)


def _told(error: Exception) -> Failure:
    """Return the failure shown to the owner; file names and addresses go only to the log."""
    if isinstance(error, IdempotencyConflict):
        return Failure.of(error)
    if isinstance(error, BlobNotFound):
        return Failure(code=error.code, message="a file of the batch is no longer in the store")
    code = error.code if isinstance(error, CrossmodalError) else CrossmodalError.code
    return Failure(code=code, message="internal error: see the log of the background process")
