"""The cancel token of an attempt: what ends its coroutine before it has ended by itself."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import Context

from crossmodal.errors import BrokerUnavailable, TimedOut
from crossmodal.jobs.ledger import Attempt, JobLedger
from crossmodal.jobs.runners import AsyncRunner

log = logging.getLogger(__name__)

CHECK_S = 0.5  # how often the attempts in hand are checked


class Superseded(Exception):
    """The attempt may no longer end its job: it was canceled, or another one has begun."""


class CancelToken:
    """Ends the work of one attempt once its job is lost to it, or its run time is used up.

    Run time is the attempt's own: while it is `off_the_clock`, waiting for a device that others
    use, none passes. `limit_s` is in seconds.
    """

    def __init__(self, attempt: Attempt, limit_s: float) -> None:
        self.attempt = attempt
        self._limit_s = limit_s
        self._timeout = asyncio.timeout(limit_s)
        self._left_s = limit_s
        self._is_lost = False

    def lose(self) -> None:
        """Have the work end now, as `Superseded`; if it is not ending already."""
        if not self._is_lost and not self._timeout.expired():
            self._is_lost = True
            self._timeout.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Work that the token may end. Raises `Superseded` or `TimedOut` then."""
        try:
            async with self._timeout:
                yield
        except TimeoutError:
            if not self._timeout.expired():  # somebody else's
                raise
            if self._is_lost:
                raise Superseded from None
            raise TimedOut(
                f"the attempt ran longer than {self._limit_s:g} s, its wait for the device not "
                "counted: ask for less, or raise CROSSMODAL_RUN_TIME_LIMIT_S"
            ) from None

    @contextmanager
    def off_the_clock(self) -> Iterator["CancelToken"]:
        """No run time passes inside, until `resume`."""
        due = self._timeout.when()
        if due is not None and not self._is_lost:
            self._left_s = due - asyncio.get_running_loop().time()
            self._timeout.reschedule(None)
        try:
            yield self
        finally:
            self.resume()

    def resume(self) -> None:
        """Have run time pass again: it is the attempt's turn."""
        if self._timeout.when() is None:
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._left_s)


class InHand:
    """The attempts that a worker works for: it checks all of them together, while there are any."""

    def __init__(self, redis: AsyncRunner, ledger: JobLedger) -> None:
        self._redis = redis
        self._ledger = ledger
        self._tokens: set[CancelToken] = set()
        self._checking: asyncio.Task[None] | None = None

    @contextmanager
    def watching(self, token: CancelToken) -> Iterator[None]:
        """Have the token end its work once the attempt is lost."""
        self._tokens.add(token)
        if self._checking is None:
            # In a context of its own: what it logs is not of the job that came first.
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
        except BrokerUnavailable:  # not to know is no reason to stop
            return
        except Exception:  # without these checks nothing could be canceled any more
            log.exception("an internal error in checking attempts")
            return
        for token in tokens:
            if token.attempt in lost and token in self._tokens:  # it has not ended meanwhile
                log.info("job %s: attempt %d ends early", token.attempt.job, token.attempt.number)
                token.lose()
