"""Handles outages of Redis and the object store, which never count against a job.

While Redis is unavailable, running jobs go on and are recorded once it is back. While the object
store is unavailable, a worker takes no messages: jobs would only run in vain.
"""

import asyncio
import logging
import time
from typing import TYPE_CHECKING, TypeVar

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
from worker.gate import Gate

if TYPE_CHECKING:  # it needs NumPy, which Flower lacks
    from worker.blobs import Blobs

T = TypeVar("T")
AGAIN_S = 0.5
CHECK_S = 1.0
TRUSTED_S = 1.0  # so soon after the store has answered, a failure is the request's own

log = logging.getLogger(__name__)


def may_pass(error: BrokerUnavailable) -> bool:
    """Return whether Redis may take the same call later; if it never can, it is no outage."""
    return error.retryable or isinstance(error, BrokerRefused | BrokerNotTrusted)


class PatientRunner:
    """A runner that retries for as long as Redis is unavailable."""

    def __init__(self, runner: AsyncRunner) -> None:
        self._runner = runner

    async def run(self, call: Call[T], again: Call[T] | None = None) -> T:
        """Run a call, retrying with `again` if given: the first try may have taken effect.

        Raises `BrokerUnavailable` only for a call that Redis can never carry out.
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
    """Closes the gate when the object store fails, and opens it once it answers; one per worker."""

    def __init__(self, blobs: "Blobs", gate: Gate) -> None:
        self._blobs = blobs
        self._gate = gate
        self._checking: asyncio.Task[None] | None = None
        self._answered_at = -TRUSTED_S

    def note(self, error: CrossmodalError) -> None:
        """Close the gate if the error means that the store is unavailable, until a check passes."""
        is_news = time.monotonic() - self._answered_at >= TRUSTED_S
        if is_outage(error) and is_news and self._checking is None:
            self._gate.why = str(error)
            self._checking = asyncio.create_task(self._check())

    def close(self) -> None:
        if self._checking is not None:
            self._checking.cancel()

    async def _check(self) -> None:
        """Poll until the store takes a write; log nothing if it does at once."""
        since = time.monotonic()
        try:
            if not await self._answers():
                log.error(
                    "no jobs are taken while the object store is unavailable: %s", self._gate.why
                )
                await asyncio.sleep(CHECK_S)
                while not await self._answers():  # noqa: ASYNC110 - a store sends no event
                    await asyncio.sleep(CHECK_S)
                away_s = time.monotonic() - since
                log.info(
                    "jobs are taken again: the object store was unavailable for %.0f s", away_s
                )
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
    """Return whether the object store failed, and not only the requested blob."""
    return isinstance(error, StorageUnavailable) and not isinstance(error, BlobDamaged)
