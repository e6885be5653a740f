"""Reports an attempt's progress to the ledger, at most twice a second.

The ledger replies whether the job is watched: only then does the host make previews.
"""

import asyncio
import logging
import time

from crossmodal.errors import CrossmodalError
from crossmodal.jobs.ledger import Attempt, JobLedger
from crossmodal.jobs.record import Progress
from crossmodal.jobs.runners import AsyncRunner
from worker.host.watch import Audience
from worker.previews import AttemptPreviews

log = logging.getLogger(__name__)

EVERY_S = 0.5


class ProgressTeller:
    """Reports the steps of one attempt. An early step waits, unless a later one replaces it."""

    def __init__(
        self, redis: AsyncRunner, ledger: JobLedger, attempt: Attempt, previews: AttemptPreviews
    ) -> None:
        self.audience = Audience()
        """Whether anyone follows the job, and so wants previews."""
        self._previews = previews
        self._last: Progress | None = None
        self._redis = redis
        self._ledger = ledger
        self._attempt = attempt
        self._is_over = False
        self._begun: float | None = None
        self._due = time.monotonic()
        self._waiting: Progress | None = None
        self._telling: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Note that the job is on the device and its first step begins."""
        self._begun = self._begun or time.monotonic()

    def step(self, done: int, of: int, preview: bytes | None = None) -> None:
        if preview is not None:
            self._previews.take(preview, self._show)
        if done <= 0:
            return
        now = time.monotonic()
        left_s = (now - (self._begun or now)) / done * max(0, of - done)
        self._tell_soon(Progress(step=done, of=of, left_s=round(left_s, 1)))

    def _show(self) -> None:
        """Report a new preview, with the next step if one is waiting."""
        if self._last is not None and not self._is_over:
            self._tell_soon(self._last)

    def _tell_soon(self, progress: Progress) -> None:
        self._last = self._waiting = progress
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell_on_time())

    async def flush(self) -> None:
        """Report the last step before the job ends."""
        self._is_over = True
        last, self._waiting = self._waiting, None
        if self._telling is not None:
            if last is not None:  # the task only sleeps
                self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        if last is not None:
            await self._tell(last)

    async def _tell_on_time(self) -> None:
        while self._waiting is not None:
            await asyncio.sleep(max(0.0, self._due - time.monotonic()))
            self._due = time.monotonic() + EVERY_S
            progress, self._waiting = self._waiting, None
            await self._tell(progress)

    async def _tell(self, progress: Progress) -> None:
        progress = progress.model_copy(update={"preview": self._previews.shown})
        try:
            is_watched = await self._redis.run(self._ledger.progress(self._attempt, progress))
            self.audience.turn(bool(is_watched))
        except CrossmodalError as e:  # a later step is reported
            log.debug("job %s: its progress is not recorded: %s", self._attempt.job, e)
