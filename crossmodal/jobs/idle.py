"""Idle connections to Redis: TCP keepalive, and a reconnect after a long idle time.

A NAT, a firewall or a proxy drops connections that are idle for some minutes. A command on a
dropped connection gets no reply, and its sender waits until the timeout. A NAT that has
lost its state, as by a restart, has dropped them all: a call that fails closes its pool's.
"""

import asyncio
import math
import socket
import time
from functools import partialmethod
from typing import Any

import redis
import redis.asyncio
from redis.asyncio import sentinel as async_sentinel
from redis.sentinel import SentinelManagedConnection

from crossmodal.settings import Settings

# The errors of calls after which other connections may not work either.
LOST = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
ENDED = "the handler is closed"  # uvloop's words
PROBES = 3  # unanswered keepalive probes before the system drops a connection


def keepalive(settings: Settings) -> dict[str, Any]:
    """Return redis-py's options for TCP keepalive within `max_idle_s`."""
    seconds = max(1, int(settings.max_idle_s / PROBES))
    names = {"TCP_KEEPIDLE": seconds, "TCP_KEEPINTVL": seconds, "TCP_KEEPCNT": PROBES}
    options = {getattr(socket, n): value for n, value in names.items() if hasattr(socket, n)}
    return {"socket_keepalive": True, "socket_keepalive_options": options}


def close_idle(pool: Any) -> None:
    """Close the idle connections of a pool, and those to the Sentinels that it asks."""
    pool.disconnect(inuse_connections=False)
    for sentinel in _sentinels(pool):
        sentinel.connection_pool.disconnect(inuse_connections=False)


async def close_idle_async(pool: Any) -> None:
    """The same for an event loop; without waiting, in which others could take the connections."""
    for one in (pool, *(sentinel.connection_pool for sentinel in _sentinels(pool))):
        for connection in tuple(one._available_connections):
            await connection.disconnect(nowait=True)


def _sentinels(pool: Any) -> Any:
    manager = getattr(pool, "sentinel_manager", None)
    return manager.sentinels if manager else ()


class _Replaced:
    """A connection that reconnects before use once it was idle for `health_check_interval`.

    redis-py would send PING over the old connection and wait for the reply.
    """

    next_health_check: Any

    def on_connect_check_health(self, check_health: bool = True) -> None:
        self.next_health_check = math.inf  # a new connection is not idle
        super().on_connect_check_health(check_health)  # type: ignore[misc]

    def check_health(self: Any) -> None:
        if time.monotonic() > self.next_health_check:
            self.disconnect()
            self.connect()


class _ReplacedAsync:
    """The same for an event loop.

    A connection that ends just before it is written to is lost as any other: uvloop raises a
    `RuntimeError` then, which redis-py does not translate.
    """

    next_health_check: Any

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        try:
            await super().send_packed_command(command, check_health)  # type: ignore[misc]
        except RuntimeError as e:
            if ENDED not in str(e):
                raise
            raise redis.exceptions.ConnectionError("the connection has ended") from e

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        self.next_health_check = math.inf
        await super().on_connect_check_health(check_health)  # type: ignore[misc]

    async def check_health(self: Any) -> None:
        if asyncio.get_running_loop().time() > self.next_health_check:
            await self.disconnect(nowait=True)
            await self.connect()


class Plain(_Replaced, redis.Connection):
    """A connection without TLS."""


class Tls(_Replaced, redis.SSLConnection):
    """A connection with TLS."""


class Master(SentinelManagedConnection):
    """A connection to the master named by Sentinels, which closes when a reply is late.

    redis-py's own stays open and reads the late reply as the reply to the next command, and never
    closes a connection that the network has dropped.
    """

    read_response = partialmethod(SentinelManagedConnection.read_response, disconnect_on_error=True)


class MasterTls(Master, redis.SSLConnection):
    """A `Master` with TLS."""


class Managed(_Replaced, Master):
    """A `Master` that reconnects after a long idle time."""


class ManagedTls(_Replaced, MasterTls):
    """A `Managed` with TLS."""


class AsyncPlain(_ReplacedAsync, redis.asyncio.Connection):
    """A connection without TLS, for an event loop."""


class AsyncTls(_ReplacedAsync, redis.asyncio.SSLConnection):
    """A connection with TLS, for an event loop."""


class AsyncManaged(_ReplacedAsync, async_sentinel.SentinelManagedConnection):
    """A connection to the master named by Sentinels, for an event loop."""


class AsyncManagedTls(_ReplacedAsync, async_sentinel.SentinelManagedSSLConnection):
    """An `AsyncManaged` with TLS."""
