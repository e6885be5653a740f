"""Outages of what all jobs share: waited for, and never held against a job.

While Redis is away, what runs goes on, and is told once Redis is back. While the object store is
away, a worker takes nothing: each job would only run in vain.
"""

import asyncio
import logging
import time
from typing import TypeVar

from crossmodal.errors import (
    BlobDamaged,
    BrokerNotTrusted,
    BrokerRefused,
    BrokerUnavailable,
    CrossmodalError,
    StorageUnavailable,
)
from crossmodal.jobs.calls import Call
from crossmodal.jobs.runners import AsyncRunner
from worker.blobs import Blobs
from worker.gate import Gate

T = TypeVar("T")
AGAIN_S = 0.5
CHECK_S = 1.0
TRUSTED_S = 1.0  # after the store has answered, that it fails is the fault of what was asked

log = logging.getLogger(__name__)


def may_pass(error: BrokerUnavailable) -> bool:
    """Whether Redis may take the same call later; what it can never carry out is no outage."""
    return error.retryable or isinstance(error, BrokerRefused | BrokerNotTrusted)


class PatientRunner:
    """Asks again for as long as Redis is away."""

    def __init__(self, runner: AsyncRunner) -> None:
        self._runner = runner

    async def run(self, call: Call[T], again: Call[T] | None = None) -> T:
        """What the call comes to; `again` is asked where it may have come to pass unheard.

        Raises `BrokerUnavailable` only for what Redis can never carry out.
        """
        while True:
            try:
                return await self._runner.run(call)
            except BrokerUnavailable as e:
                if not may_pass(e):
                    raise
            call = again or call
            await asyncio.sleep(AGAIN_S)


class StoreWatch:
    """Closes the gate when the object store fails, and opens it once that answers; one a worker."""

    def __init__(self, blobs: Blobs, gate: Gate) -> None:
        self._blobs = blobs
        self._gate = gate
        self._checking: asyncio.Task[None] | None = None
        self._answered_at = -TRUSTED_S

    def note(self, error: CrossmodalError) -> None:
        """Take nothing more if this says that the store is away, until a check has passed."""
        is_news = time.monotonic() - self._answered_at >= TRUSTED_S
        if is_outage(error) and is_news and self._checking is None:
            self._gate.why = str(error)
            self._checking = asyncio.create_task(self._check())

    def close(self) -> None:
        if self._checking is not None:
            self._checking.cancel()

    async def _check(self) -> None:
        """Ask until the store takes something; where it does at once, nothing is said."""
        since = time.monotonic()
        try:
            if not await self._answers():
                log.error("no jobs are taken while the object store is away: %s", self._gate.why)
                await asyncio.sleep(CHECK_S)
                while not await self._answers():  # noqa: ASYNC110 - a store tells nobody
                    await asyncio.sleep(CHECK_S)
                away_s = time.monotonic() - since
                log.info("jobs are taken again: the object store was away for %.0f s", away_s)
        finally:
            self._checking, self._gate.why = None, ""
        self._answered_at = time.monotonic()

    async def _answers(self) -> bool:
        try:
            await self._blobs.call(lambda: self._blobs.store.check())
        except CrossmodalError as e:
            self._gate.why = str(e)
            return False
        return True


def is_outage(error: CrossmodalError) -> bool:
    """Whether the object store failed, and not the one blob that was asked for."""
    return isinstance(error, StorageUnavailable) and not isinstance(error, BlobDamaged)
