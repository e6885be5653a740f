"""How far the job of an attempt is, told to the ledger no more than twice a second."""

import asyncio
import logging
import time

from crossmodal.errors import CrossmodalError
from crossmodal.jobs.ledger import Attempt, JobLedger
from crossmodal.jobs.record import Progress
from crossmodal.jobs.runners import AsyncRunner

log = logging.getLogger(__name__)

EVERY_S = 0.5


class ProgressTeller:
    """Takes the steps of one attempt. One that comes too soon waits, for a later one at most."""

    def __init__(self, redis: AsyncRunner, ledger: JobLedger, attempt: Attempt) -> None:
        self._redis = redis
        self._ledger = ledger
        self._attempt = attempt
        self._begun: float | None = None
        self._due = time.monotonic()
        self._waiting: Progress | None = None
        self._telling: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Note that the job is on the device: its first step begins."""
        self._begun = self._begun or time.monotonic()

    def step(self, done: int, of: int) -> None:
        if done <= 0:
            return
        now = time.monotonic()
        left_s = (now - (self._begun or now)) / done * max(0, of - done)
        self._waiting = Progress(step=done, of=of, left_s=round(left_s, 1))
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell_on_time())

    async def flush(self) -> None:
        """Tell the last step before the job has ended."""
        last, self._waiting = self._waiting, None
        if self._telling is not None:
            if last is not None:  # it only sleeps
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
        try:
            await self._redis.run(self._ledger.progress(self._attempt, progress))
        except CrossmodalError as e:  # the next step will be told
            log.debug("job %s: its progress is not told: %s", self._attempt.job, e)
