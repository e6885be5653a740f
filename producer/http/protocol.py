"""uvicorn's HTTP protocol, with idle connections that give way to new ones, and a minimum rate
at which clients must read responses."""

import asyncio
import time

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from crossmodal.settings import Settings
from producer.http.bodies import GRACE_S, MIN_RATE
from producer.http.connections import MAX_CONNECTIONS

STOP_S = 10  # max time for requests in progress to finish


class Yielding(H11Protocol):
    """A connection that closes the longest idle one when the server is at its max of connections.

    Idle: without a complete request head. So idle connections never cause a refusal."""

    idle_since = 0.0
    _check: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.idle_since = time.monotonic()
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            others = (one for one in self.connections if one is not self)
            idle = [one for one in others if isinstance(one, Yielding) and one.is_idle]
            if idle:
                longest = min(idle, key=lambda one: one.idle_since)
                self.connections.discard(longest)  # stops counting at once
                longest.transport.abort()  # unread data is dropped

    @property
    def is_idle(self) -> bool:
        """Whether no request is in progress; a response may still be unread."""
        return self.cycle is None or self.cycle.response_complete

    def on_response_complete(self) -> None:
        self.idle_since = time.monotonic()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_check()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._check_again()

    def resume_writing(self) -> None:
        self._stop_check()
        super().resume_writing()

    def _check_again(self) -> None:
        unread = self.transport.get_write_buffer_size()
        self._check = self.loop.call_later(GRACE_S, self._check_read, unread)

    def _check_read(self, before: int) -> None:
        """Close the connection of a client that reads more slowly than `MIN_RATE`."""
        if before - self.transport.get_write_buffer_size() < GRACE_S * MIN_RATE:
            self.transport.abort()
        else:
            self._check_again()

    def _stop_check(self) -> None:
        if self._check is not None:
            self._check.cancel()


def config_of(app: ASGIApp, host: str, port: int, settings: Settings) -> uvicorn.Config:
    """Return the uvicorn config that all servers of the project share."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        http=Yielding,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=STOP_S,
        server_header=False,
    )
