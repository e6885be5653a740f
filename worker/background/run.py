"""One batch on its way: its file is read, its messages are sent, its results are gathered."""

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
from producer.client import Client
from producer.jsonl import BatchFile, result_line
from producer.told import failure_view

log = logging.getLogger(__name__)


class BatchLeft(Exception):
    """The run was told to leave the batch, as it is, to another process."""


class BatchRun:
    """Runs one batch in a thread, until its end or until it is told to leave it.

    A batch that another process has begun goes on: what was sent is not sent again.
    """

    def __init__(self, client: Client, batch: HttpBatch) -> None:
        self._client = client
        self._batch = batch
        self._is_left = False

    def leave(self) -> None:
        """Have `to_end` raise `BatchLeft` within seconds. May be called by any thread."""
        self._is_left = True

    def to_end(self) -> HttpBatch:
        """The batch's record when it has been run, or given up. Raises what may pass."""
        try:
            return self._run()
        except (BatchLeft, JobNotFound, OSError):
            raise  # a message whose record Redis has lost is sent again by the next run
        except CrossmodalError as e:
            if e.retryable or isinstance(e, BrokerUnavailable):
                raise
            log.error("batch %s is given up: %s", self._batch.id, e)
            failure = _told(e)
        except Exception as e:
            log.exception("internal error in batch %s", self._batch.id)
            failure = _told(e)
        return self._batch.model_copy(update={"is_done": True, "failure": failure})

    def _run(self) -> HttpBatch:
        """Send what is not sent, gather what is done, and store it as the output."""
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
        """What became of each item; also while there is none to tell, the batch can be left."""
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
        """Write the batch's file, of which no more than a piece is ever in memory."""
        storage, source = self._client.storage, input_of(self._batch.id)
        found = storage.head(source)
        if found is None:
            raise BlobNotFound(f"there is nothing at {source!r} in {storage.url}")
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
    return Failure(code=code, message="internal error: the log of the background process says more")
