"""Limits on request bodies: their size, their rate, and the bytes held at once.

A client that sends an endless body must not exhaust memory or disk that others need.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crossmodal.errors import BodyTooLarge, BodyTooSlow, Overloaded, RateLimited
from crossmodal.settings import Settings

OVERHEAD = 65_536  # bytes of a body beside its picture
FREE = 65_536  # bytes of a body that are not counted, so that small requests are always accepted
SHARE = 4  # one owner may hold 1 / SHARE of all bytes, or one body
GRACE_S = 30.0  # before MIN_RATE applies
MIN_RATE = 5_000  # bytes a second
RETRY_S = 5.0
BODY = "crossmodal.body"  # the scope's key for the request's `Body`


class Budget:
    """The body bytes held in one event loop, per owner. Without API keys there is one owner."""

    def __init__(self, settings: Settings) -> None:
        largest = max(largest_body(settings), settings.max_batch_bytes)
        self._max = max(settings.max_bodies_bytes, largest)
        self.share = max(self._max // SHARE, largest)
        self._of: Counter[str] = Counter()

    def hold(self, owner: str, count: int) -> None:
        """Count bytes as held. Raises `RateLimited` or `Overloaded`."""
        if owner and self._of[owner] + count > self.share:
            raise RateLimited(
                f"unanswered requests of this API key hold {self._of[owner]} bytes of bodies, "
                f"{self.share} are allowed: send fewer at once",
                RETRY_S,
            )
        if self._of.total() + count > self._max:
            raise Overloaded(
                f"unanswered requests hold {self._of.total()} bytes of bodies, "
                f"{self._max} are allowed: try again in a moment"
            )
        self._of[owner] += count

    def release(self, owner: str, count: int) -> None:
        """Stop counting these bytes."""
        self._of[owner] -= count
        if not self._of[owner]:
            del self._of[owner]


class Body:
    """The body of one request. Only bytes read before the response starts count as held."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        budget: Budget,
        limit: int,
        timeout_s: float,
        owner_of: Callable[[Scope], str],
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._budget = budget
        self._limit = limit
        self._timeout_s = timeout_s
        self._owner_of = owner_of
        self._owner: str | None = None  # set when the first bytes are counted
        self._read = self._held = 0
        self._waited_s = 0.0
        self.is_over = False
        """Whether the body was read to its end, or the response has started."""

    async def receive(self) -> Message:
        """Return the next part.

        Raises `BodyTooLarge`, `BodyTooSlow`, `RateLimited` or `Overloaded`.
        """
        if self.is_over:
            return await self._receive()
        said = Headers(scope=self._scope).get("content-length", "")
        self._check_size(int(said) if said.isdecimal() else 0)
        message = await self._in_time()
        if message["type"] == "http.request" and not self.is_over:
            self._read += len(message.get("body", b""))
            self._check_size(self._read)
            self._hold(max(0, self._read - FREE) - self._held)
            self.is_over = not message.get("more_body", False)
        return message

    def release(self) -> None:
        """Stop counting this body's bytes as held."""
        self._budget.release(self._owner or "", self._held)
        self._held = 0

    def _hold(self, count: int) -> None:
        if self._owner is None:
            self._owner = self._owner_of(self._scope)
        self._budget.hold(self._owner, count)
        self._held += count

    async def _in_time(self) -> Message:
        """Return the next part in time; only time spent receiving counts against the sender."""
        max_s = min(self._timeout_s, GRACE_S + self._read / MIN_RATE)
        begun = time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, max_s - self._waited_s)):
                return await self._receive()
        except TimeoutError:
            if self.is_over:  # response started: a stream waits for its client to disconnect
                return await self._receive()
            raise BodyTooSlow(
                f"{self._read} bytes of the body came in {max_s:.0f} s: send at least {MIN_RATE} "
                f"bytes a second, and all of it within {self._timeout_s:g} s"
            ) from None
        finally:
            self._waited_s += time.monotonic() - begun

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            raise BodyTooLarge(
                f"the body has {size} bytes or more, {self._limit} are allowed: send less, or "
                "raise CROSSMODAL_MAX_IMAGE_BYTES or CROSSMODAL_MAX_BATCH_BYTES"
            )


class BodyLimits:
    """ASGI middleware that limits request bodies, with or without a Content-Length.

    `owner_of` returns the owner of a request; it is called once part of the body was read.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        owner_of: Callable[[Scope], str],
        of_files: tuple[str, ...] = (),
    ) -> None:
        self._app = app
        self._budget = Budget(settings)
        self._settings = settings
        self._owner_of = owner_of
        self._of_files = of_files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        settings = self._settings
        is_file = scope["path"] in self._of_files
        limit = settings.max_batch_bytes if is_file else largest_body(settings)
        body = scope[BODY] = Body(
            scope, receive, self._budget, limit, settings.body_timeout_s, self._owner_of
        )

        async def answer(message: Message) -> None:
            body.is_over = True
            await send(message)

        try:
            await self._app(scope, body.receive, answer)
        finally:
            body.release()


def largest_body(settings: Settings) -> int:
    """Return the size in bytes of a request with the largest picture, in base64."""
    return settings.max_image_bytes * 4 // 3 + OVERHEAD


def body_is_done(scope: MutableMapping[str, Any]) -> None:
    """Stop counting a request's body as held before its response starts."""
    scope[BODY].release()
