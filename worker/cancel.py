"""The cancel token of an attempt: what ends its coroutine before it has ended by itself."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from crossmodal.errors import TimedOut
from crossmodal.jobs.ledger import Attempt


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
