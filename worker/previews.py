"""Previews of an attempt's picture while it is drawn, for those who follow its job.

A preview that fails is skipped: it never affects the job.
"""

import asyncio
import logging
from collections.abc import Callable

from crossmodal.jobs.ledger import Attempt
from crossmodal.jobs.names import preview_key
from crossmodal.jobs.record import PreviewRef
from worker.blobs import Blobs

log = logging.getLogger(__name__)

CLOSE_S = 2.0  # max wait of a stopping worker for the deletion of its last previews


class Previews:
    """Stores and deletes previews without delaying jobs; one per process."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._deleting: set[asyncio.Task[None]] = set()

    def of(self, attempt: Attempt) -> "AttemptPreviews":
        """Return the previews of one attempt."""
        return AttemptPreviews(self._blobs, attempt)

    def end(self, previews: "AttemptPreviews") -> None:
        """Start to delete the previews of an ended attempt, if there are any."""
        if previews.has_begun:
            task = asyncio.create_task(previews.delete())
            self._deleting.add(task)
            task.add_done_callback(self._deleting.discard)

    async def close(self) -> None:
        """Wait briefly for pending deletions; `crossmodal gc` removes the rest."""
        if self._deleting:
            await asyncio.wait(self._deleting, timeout=CLOSE_S)


class AttemptPreviews:
    """The previews of one attempt. While one is being stored, only the latest other one waits."""

    def __init__(self, blobs: Blobs, attempt: Attempt) -> None:
        self.shown: PreviewRef | None = None
        """The stored preview."""
        self._blobs = blobs
        self._attempt = attempt
        self._key = preview_key(attempt.job, attempt.number)
        self._number = 0
        self._waiting: bytes | None = None
        self._storing: asyncio.Task[None] | None = None

    @property
    def has_begun(self) -> bool:
        """Whether a preview may have been stored."""
        return self._storing is not None

    def take(self, data: bytes, on_stored: Callable[[], None]) -> None:
        """Store a JPEG file, and call `on_stored` once it is there."""
        self._waiting = data
        if self._storing is None or self._storing.done():
            self._storing = asyncio.create_task(self._store(on_stored))

    async def delete(self) -> None:
        """Delete the stored preview, after any that is being stored."""
        self._waiting = None
        if self._storing is not None:
            await self._storing
        try:
            await self._blobs.call(self._blobs.delete, self._key)
        except Exception as e:  # noqa: BLE001 - as below
            log.debug("job %s: its preview is not deleted: %s", self._attempt.job, e)

    async def _store(self, on_stored: Callable[[], None]) -> None:
        while self._waiting is not None:
            data, self._waiting = self._waiting, None
            try:
                await self._blobs.call(self._blobs.put_preview, self._key, data)
            except Exception as e:  # noqa: BLE001 - no error of a preview may affect the job
                log.debug("job %s: its preview is not stored: %s", self._attempt.job, e)
                continue
            self._number += 1
            self.shown = PreviewRef(key=self._key, number=self._number)
            on_stored()
