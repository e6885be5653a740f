"""The cancel token of an attempt, which ends its coroutine early."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import Context

from crossmodal.errors import BrokerUnavailable, TimedOut
from crossmodal.jobs.ledger import Attempt, JobLedger
from crossmodal.jobs.runners import AsyncRunner

log = logging.getLogger(__name__)

CHECK_S = 0.5  # how often running attempts are checked


class Superseded(Exception):
    """The attempt may no longer end its job: it was canceled, or another attempt has begun."""


class CancelToken:
    """A token that ends the work of an attempt once it is superseded or out of run time.

    The run time, `limit_s` seconds, excludes waiting for a device that others use: that is
    `off_the_clock`.
    """

    def __init__(self, attempt: Attempt, limit_s: float) -> None:
        self.attempt = attempt
        self._limit_s = limit_s
        self._timeout = asyncio.timeout(limit_s)
        self._left_s = limit_s
        self._is_lost = False

    def lose(self) -> None:
        """End the work now with `Superseded`, unless it is ending already."""
        if not self._is_lost and not self._timeout.expired():
            self._is_lost = True
            self._timeout.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Let the token end the work inside, with `Superseded` or `TimedOut`."""
        try:
            async with self._timeout:
                yield
        except TimeoutError:
            if not self._timeout.expired():  # raised by another timeout
                raise
            if self._is_lost:
                raise Superseded from None
            raise TimedOut(
                f"the attempt ran longer than {self._limit_s:g} s, not counting its wait for the "
                "device: request less, or raise CROSSMODAL_RUN_TIME_LIMIT_S"
            ) from None

    @contextmanager
    def off_the_clock(self) -> Iterator["CancelToken"]:
        """Stop the run-time clock inside, until `resume`."""
        due = self._timeout.when()
        if due is not None and not self._is_lost:
            self._left_s = due - asyncio.get_running_loop().time()
            self._timeout.reschedule(None)
        try:
            yield self
        finally:
            self.resume()

    def resume(self) -> None:
        """Start the run-time clock again: the attempt is on the device."""
        if self._timeout.when() is None:
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._left_s)


class InHand:
    """The running attempts of a worker, all checked together while there are any."""

    def __init__(self, redis: AsyncRunner, ledger: JobLedger) -> None:
        self._redis = redis
        self._ledger = ledger
        self._tokens: set[CancelToken] = set()
        self._checking: asyncio.Task[None] | None = None

    @contextmanager
    def watching(self, token: CancelToken) -> Iterator[None]:
        """Check the attempt meanwhile, and end its work through the token once it is lost."""
        self._tokens.add(token)
        if self._checking is None:
            # In its own context: its log lines must not carry the first job's id.
            self._checking = asyncio.create_task(self._check_all(), context=Context())
        try:
            yield
        finally:
            self._tokens.discard(token)

    def close(self) -> None:
        if self._checking is not None:
            self._checking.cancel()

    async def _check_all(self) -> None:
        try:
            while self._tokens:
                await asyncio.sleep(CHECK_S)
                await self._check(list(self._tokens))
        finally:
            self._checking = None

    async def _check(self, tokens: list[CancelToken]) -> None:
        try:
            lost = await self._redis.run(self._ledger.lost([t.attempt for t in tokens]))
        except BrokerUnavailable:  # an unknown state is no reason to stop
            return
        except Exception:  # keep checking: else nothing could be canceled
            log.exception("internal error in the check for canceled attempts")
            return
        for token in tokens:
            if token.attempt in lost and token in self._tokens:  # not ended meanwhile
                job, number = token.attempt.job, token.attempt.number
                log.info("job %s: attempt %d is canceled or superseded", job, number)
                token.lose()
