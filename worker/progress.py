"""How far the job of an attempt is, told to the ledger no more than twice a second."""

import asyncio
import logging
import time

from crossmodal.errors import CrossmodalError
from crossmodal.jobs.ledger import Attempt, JobLedger
from crossmodal.jobs.record import Progress
from crossmodal.jobs.runners import AsyncRunner

log = logging.getLogger(__name__)

EVERY_S = 0.5  # on average: a step that comes a little early is told all the same
EARLY_S = 0.1


class ProgressTeller:
    """Takes the steps of one attempt; of those that come too soon after another, none is told."""

    def __init__(self, redis: AsyncRunner, ledger: JobLedger, attempt: Attempt) -> None:
        self._redis = redis
        self._ledger = ledger
        self._attempt = attempt
        self._begun: float | None = None
        self._due = time.monotonic()
        self._telling: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Note that the job is on the device: its first step begins."""
        self._begun = self._begun or time.monotonic()

    def step(self, done: int, of: int) -> None:
        now = time.monotonic()
        is_busy = self._telling is not None and not self._telling.done()
        if done <= 0 or now < self._due - EARLY_S or is_busy:
            return
        self._due = max(now, self._due) + EVERY_S
        left_s = (now - (self._begun or now)) / done * max(0, of - done)
        progress = Progress(step=done, of=of, left_s=round(left_s, 1))
        self._telling = asyncio.create_task(self._tell(progress))

    async def _tell(self, progress: Progress) -> None:
        try:
            await self._redis.run(self._ledger.progress(self._attempt, progress))
        except CrossmodalError as e:  # the next step will be told
            log.debug("job %s: its progress is not told: %s", self._attempt.job, e)
