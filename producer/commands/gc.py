"""`crossmodal gc`: remove blobs that no record names any more."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import Annotated

import typer

from crossmodal.console import Json, errors_to_exit_status, print_json, say
from crossmodal.errors import BlobNotFound, InvalidParams, JobNotFound
from crossmodal.jobs.bulk import unpack_items
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import (
    CAPTIONS,
    CHECKS,
    INPUTS,
    PREVIEWS,
    RESULTS,
    job_of_result,
    result_key,
)
from crossmodal.jobs.runners import Runner
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.task import Task
from crossmodal.settings import load_settings
from crossmodal.storage import Storage, StoredBlob, open_storage
from producer.twins import Runs

GRACE_S = 3_600.0
CHUNK = 500  # blobs deleted per scan of the records


@dataclass
class Collected:
    """The counts of one collection."""

    seen: int = 0
    removed: int = 0
    removed_bytes: int = 0


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing, only count.")] = False,
    older_than_s: Annotated[
        float | None,
        typer.Option(
            "--older-than",
            min=0,
            help="Min age in seconds of blobs without a record. [CROSSMODAL_RETENTION_S]",
        ),
    ] = None,
    grace_s: Annotated[
        float,
        typer.Option(
            "--grace",
            min=0,
            help="Min age in seconds of blobs that a job left and its record does not name.",
        ),
    ] = GRACE_S,
    as_json: Json = False,
) -> None:
    """Remove results and inputs whose records have expired, and leftovers of dead attempts."""
    with errors_to_exit_status():
        settings = load_settings()
        collector = Collector(
            Runner(settings, what="cli"),
            JobLedger(settings),
            open_storage(settings),
            settings.retention_s if older_than_s is None else older_than_s,
            grace_s,
        )
        found = collector.run(dry_run)
        if as_json:
            print_json(asdict(found))
            return
        verb = "would remove" if dry_run else "removed"
        say(f"{verb} {found.removed} of {found.seen} blobs, {found.removed_bytes:,} bytes")


class Collector:
    """A garbage collector of blobs that no record names.

    It lists blobs before it reads records, so that it sees jobs submitted meanwhile. It checks
    each blob's age again just before deleting it, because uploading the same picture again renews
    it. A blob without any record must also be older than `older_than_s`: a result is as old as its
    record, so a collector connected to the wrong Redis removes nothing still in use.
    """

    def __init__(
        self, runner: Runs, ledger: JobLedger, storage: Storage, older_than_s: float, grace_s: float
    ) -> None:
        self._run = runner.run
        self._ledger = ledger
        self._storage = storage
        self._pictures: dict[str, list[str]] = {}
        self._expired_before = time.time() - older_than_s
        self._left_before = time.time() - grace_s

    def run(self, dry_run: bool = False) -> Collected:
        """Collect the whole store once."""
        found = Collected()
        candidates = chain(
            self._results(found),
            self._inputs(found),
            self._strays(PREVIEWS, found),
            self._strays(CHECKS, found),
        )
        while chunk := list(islice(candidates, CHUNK)):
            needed = set(self._needed())  # again for each chunk: deleting takes time
            for blob in chunk:
                if blob.key not in needed and (dry_run or self._delete(blob)):
                    found.removed += 1
                    found.removed_bytes += blob.size
        return found

    def _needed(self) -> Iterator[str]:
        """Yield the keys of inputs that records or the items of bulk messages name."""
        for task, key in self._recorded():
            yield key
            if task.is_bulk and task.kind.picture is not None:
                yield from self._pictures_of(key, task.kind.picture)

    def _recorded(self) -> Iterator[tuple[Task, str]]:
        """Yield the task and input key of every record, page by page."""
        found, cursor = self._run(self._ledger.inputs())
        yield from found
        while cursor:
            found, cursor = self._run(self._ledger.inputs(cursor))
            yield from found

    def _pictures_of(self, key: str, field: str) -> list[str]:
        """Return the keys of blobs among a message's items; cached, for inputs never change."""
        if key not in self._pictures:
            self._pictures[key] = list(self._read_pictures(key, field))
        return self._pictures[key]

    def _read_pictures(self, key: str, field: str) -> Iterator[str]:
        try:
            items = unpack_items(self._storage.get(BlobRef(key=key)))
        except (BlobNotFound, InvalidParams):  # its job will fail anyway
            return
        for item in items:
            image = item.params.get(field)
            if isinstance(image, dict) and isinstance(image.get("key"), str):
                yield image["key"]

    def _delete(self, blob: StoredBlob) -> bool:
        """Delete the blob, unless it was stored again meanwhile. Returns whether it was."""
        now = self._storage.head(blob.key)
        if now is None or now.modified_at != blob.modified_at:
            return False
        self._storage.delete(blob.key)
        return True

    def _list(
        self, prefix: str, found: Collected, is_garbage: Callable[[StoredBlob], bool]
    ) -> Iterator[StoredBlob]:
        for blob in self._storage.list(prefix):
            found.seen += 1
            if is_garbage(blob):
                yield blob

    def _results(self, found: Collected) -> Iterator[StoredBlob]:
        return self._list(RESULTS, found, self._is_left_over)

    def _is_left_over(self, blob: StoredBlob) -> bool:
        job_id = job_of_result(blob.key)
        try:
            job = self._run(self._ledger.get(job_id))
        except JobNotFound:  # a batch job's files, also its upload, have an id without a record
            expired = blob.modified_at < self._expired_before
            return expired and not self._run(self._ledger.is_upload(job_id))
        if not job.state.is_terminal or blob.modified_at >= self._left_before:
            return False
        if job.task.is_bulk:  # only its parts name its pictures; they live as long as the record
            return False
        if job.result is None:
            return True
        captions = result_key(job_id, CAPTIONS, job.result.attempt)
        return blob.key not in {captions, *(image.key for image in job.result.images)}

    def _inputs(self, found: Collected) -> Iterator[StoredBlob]:
        return self._list(INPUTS, found, lambda b: b.modified_at < self._expired_before)

    def _strays(self, folder: str, found: Collected) -> Iterator[StoredBlob]:
        """Yield temporary blobs left behind by a worker or by `crossmodal doctor`."""
        return self._list(folder, found, lambda b: b.modified_at < self._left_before)
