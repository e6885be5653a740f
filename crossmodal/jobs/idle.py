"""Connections to Redis that are idle: kept warm by the system, and not trusted after a while.

A NAT, a firewall or a proxy in between forgets or ends what was silent for some minutes. Whatever
is sent over such a connection gets no answer, and who sent it waits for that until its timeout.
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

PROBES = 3  # that are not answered, before the system takes a connection for lost


def keepalive(settings: Settings) -> dict[str, Any]:
    """Options of a connection that shows itself to what is in between, as often as need be."""
    seconds = max(1, int(settings.max_idle_s / PROBES))
    names = {"TCP_KEEPIDLE": seconds, "TCP_KEEPINTVL": seconds, "TCP_KEEPCNT": PROBES}
    options = {getattr(socket, n): value for n, value in names.items() if hasattr(socket, n)}
    return {"socket_keepalive": True, "socket_keepalive_options": options}


class _Replaced:
    """One that was idle for `health_check_interval` is replaced by a new one before it is used.

    redis-py would ask the old one whether it lives, and wait for the answer.
    """

    next_health_check: Any

    def on_connect_check_health(self, check_health: bool = True) -> None:
        self.next_health_check = math.inf  # what is new is not idle
        super().on_connect_check_health(check_health)  # type: ignore[misc]

    def check_health(self: Any) -> None:
        if time.monotonic() > self.next_health_check:
            self.disconnect()
            self.connect()


class _ReplacedAsync:
    """The same on an event loop."""

    next_health_check: Any

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        self.next_health_check = math.inf
        await super().on_connect_check_health(check_health)  # type: ignore[misc]

    async def check_health(self: Any) -> None:
        if asyncio.get_running_loop().time() > self.next_health_check:
            await self.disconnect(nowait=True)
            await self.connect()


class Plain(_Replaced, redis.Connection):
    """Without TLS."""


class Tls(_Replaced, redis.SSLConnection):
    """With TLS."""


class Master(SentinelManagedConnection):
    """To the master that Sentinels name. Ends when a reply is not there in time, as others do.

    redis-py's own stays open, and takes the late reply for that to the next command; one that a
    network has forgotten it keeps for ever.
    """

    read_response = partialmethod(SentinelManagedConnection.read_response, disconnect_on_error=True)


class MasterTls(Master, redis.SSLConnection):
    """The same with TLS."""


class Managed(_Replaced, Master):
    """... that is not trusted after a while."""


class ManagedTls(_Replaced, MasterTls):
    """The same with TLS."""


class AsyncPlain(_ReplacedAsync, redis.asyncio.Connection):
    """Without TLS, on an event loop."""


class AsyncTls(_ReplacedAsync, redis.asyncio.SSLConnection):
    """With TLS, on an event loop."""


class AsyncManaged(_ReplacedAsync, async_sentinel.SentinelManagedConnection):
    """To the master that Sentinels name, on an event loop."""


class AsyncManagedTls(_ReplacedAsync, async_sentinel.SentinelManagedSSLConnection):
    """The same with TLS."""
