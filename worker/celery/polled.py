"""The connections that a kombu channel polls for messages and for remote control.

A connection that is lost or no longer answered, as when a NAT has dropped it, is replaced in place,
so that Celery need not restart its consumer. Like `transport.py`, `unacked.py` and `lease.py` this
depends on kombu's internals; a test fails when those change.
"""

import logging
import math
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty
from typing import Any

from kombu.asynchronous import get_event_loop
from kombu.transport import redis as kombu_redis
from redis.exceptions import RedisError

from crossmodal.errors import CrossmodalError
from worker.celery.broadcast import BroadcastChannel
from worker.celery.lanes import Lanes
from worker.notices import Lasting

log = logging.getLogger(__name__)

SetAside = Callable[[str, bytes, CrossmodalError], None]


@dataclass
class Shared:
    """State that all channels of a process share, also those of lost connections.

    `acked` are delivery tags still to be acknowledged in Redis, `held` messages that BRPOP returned
    and that could not be noted; `polled_at` is when Redis last answered, by the monotonic clock.
    `ticks` are the hub's callbacks that poll the newest connection.
    """

    max_bytes: int
    set_aside: SetAside
    lanes: Lanes
    acked: list[str] = field(default_factory=list)
    held: list[tuple[str, bytes]] = field(default_factory=list)
    pools: dict[str, Any] = field(default_factory=dict)
    ticks: set[Any] = field(default_factory=set)
    polled_at: float = 0.0

    def __post_init__(self) -> None:
        self.refused = Lasting(
            log, "Redis refuses to deliver messages for now: %s", "Redis delivers messages again"
        )
        self.deaf = Lasting(
            log,
            "Redis does not answer on the connection for messages",
            "Redis answers again on the connection for messages",
        )
        self.uncontrolled = Lasting(
            log,
            "Redis does not answer on the connection for remote control",
            "Redis answers again on the connection for remote control",
        )
        self.not_acknowledged = Lasting(
            log,
            "%d messages are not acknowledged yet: %s",
            "all messages of ended jobs are acknowledged",
        )
        self.not_swept = Lasting(
            log,
            "messages of dead workers are not redelivered for now: %s",
            "messages of dead workers are redelivered again",
        )


class Polled(BroadcastChannel):
    """A channel with connections of its own for reading, and a shared pool for all else."""

    shared: Shared  # set by `install`

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._caller: Any = None
        self._pool: Any = None
        self._answer_due = math.inf  # deadline of the answer to BRPOP
        self._pong_due = math.inf  # deadline of the answer to a ping of remote control's connection
        super().__init__(*args, **kwargs)
        self.async_pool.disconnect()  # kombu connected for a ping; many channels never read

    @property
    def pool(self) -> Any:
        """The connection pool of all channels of this process to the same server."""
        if self.connection is not None:
            uri = self.connection.client.as_uri(include_password=True)
            pools = self.shared.pools
            self._pool = pools.get(uri) or pools.setdefault(uri, self._get_pool())
        return self._pool

    @property
    def patience_s(self) -> float:
        """How long an answer may take; infinite if no socket timeout is set."""
        return self.socket_timeout or math.inf

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """Yield a client that is made once: making one takes longer than most calls."""
        if self._caller is None:
            self._caller = self._create_client()
        yield client or self._caller

    def _hang_up(self) -> None:
        """Connect anew before the next BRPOP: after a failover another server may answer."""
        self._in_poll, self._answer_due = None, math.inf
        self._replace(self.client, "BRPOP")
        self.pool.disconnect()

    def _replace(self, client: Any, use: str) -> None:
        """Close a connection that is polled; the next poll opens another."""
        self.connection.cycle.forget(self, client, use)
        client.connection.disconnect()

    def _on_connection_disconnect(self, connection: Any) -> None:
        """Do nothing: kombu would poll no more until Celery restarts its consumer."""

    def check_connections(self) -> None:
        """Replace connections that missed their deadline; ping one that is silent."""
        now = time.monotonic()
        if now > self._answer_due and not _has_come(self.client.connection):
            self.shared.deaf.warn()
            self._hang_up()
        if not self._in_listen or self.silent_s <= self.health_check_interval:
            self._pong_due = math.inf
            if self._in_listen:
                self.shared.uncontrolled.note_success()
        elif self._pong_due == math.inf:
            self._pong_due = now + self.patience_s
            self._ping_control()
        elif now > self._pong_due and self._is_control_lost(now):
            self.shared.uncontrolled.warn()
            self._listen_anew()

    @property
    def silent_s(self) -> float:
        """How long remote control has received nothing; 0 if the channel does not listen to it."""
        connection = getattr(self.__dict__.get("subclient"), "connection", None)
        if not self.active_fanout_queues or connection is None or not connection.next_health_check:
            return 0.0
        heard_at: float = connection.next_health_check - self.health_check_interval
        return time.monotonic() - heard_at

    def _listen_anew(self) -> None:
        """Subscribe again over a new connection; commands sent meanwhile are lost."""
        self._in_listen = None
        self._replace(self.subclient, "LISTEN")

    def _is_control_lost(self, now: float) -> bool:
        """Return whether nothing has come, or what has come stays unread: it is not polled then."""
        return not _has_come(self.subclient.connection) or now > self._pong_due + self.patience_s

    def _ping_control(self) -> None:
        try:
            self.subclient.check_health()
        except (*self.connection_errors, RedisError) as e:
            self._lose_control(e)

    def _receive(self) -> bool:
        """Receive all commands that have come."""
        try:
            return bool(super()._receive())
        except (*self.connection_errors, RedisError) as e:
            self._lose_control(e)
            return False

    def _lose_control(self, error: Exception) -> None:
        log.warning("the connection for remote control is lost: %s", error)
        self._listen_anew()

    def _receive_one(self, connection: Any) -> Any:
        """Receive a remote control command; an invalid one must not end the worker."""
        try:
            return super()._receive_one(connection)
        except (Empty, *self.connection_errors, RedisError):
            raise
        except Exception:
            log.exception("a broadcast message is not a remote control command")
            raise Empty from None


class Poller(kombu_redis.MultiChannelPoller):
    """A poller that takes the messages known to wait before it waits itself."""

    def on_poll_start(self) -> None:
        for channel in self._channels:
            channel.check_connections()
            channel.take_more()
        super().on_poll_start()

    def get(self, callback: Any, timeout: float | None = None) -> None:
        """Poll without an event loop, as Flower does for events."""
        for channel in self._channels:
            channel.check_connections()
        super().get(callback, timeout)

    def on_readable(self, fileno: int) -> None:
        """Read an answer; if none is due, the connection has ended.

        kombu would leave that unread while there is no room, and the hub would report it again at
        once.
        """
        channel, use = self._fd_to_chan[fileno]
        if use == "BRPOP" and not channel._in_poll:
            channel._hang_up()
        else:
            channel.handlers[use]()

    def maybe_check_subclient_health(self) -> None:
        """Do nothing: `check_connections` does it, without an end of the consumer."""

    @property
    def silent_s(self) -> float:
        """The longest silence of a remote control connection, in seconds."""
        return max((channel.silent_s for channel in self._channels), default=0.0)

    def discard(self, channel: Any) -> None:
        """Stop reading for a channel that is closed."""
        super().discard(channel)
        for one, client, use in tuple(self._chan_to_sock):
            if one is channel:
                self.forget(channel, client, use)

    def forget(self, channel: Any, client: Any, use: str) -> None:
        """Stop reading from a connection of a channel."""
        self._chan_to_sock.pop((channel, client, use), None)
        for fd in [fd for fd, one in self._fd_to_chan.items() if one == (channel, use)]:
            del self._fd_to_chan[fd]
            if (hub := get_event_loop()) is not None:
                hub.remove(fd)


def _has_come(connection: Any) -> bool:
    """Return whether data can be read: then this process was late, not Redis.

    The data may be a message that is in no list any more.
    """
    if connection is None or connection._sock is None:
        return False
    poll = select.poll()
    poll.register(connection._sock, select.POLLIN)
    return bool(poll.poll(0))
