"""kombu's record of the messages in hand, which any worker's sweep gives out again.

With `transport.py` and `lease.py` this is where kombu's inside is known; a test fails when kombu
changes it.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kombu.asynchronous import get_event_loop
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.json import loads
from redis.exceptions import RedisError

from crossmodal.errors import InvalidMessage, described

log = logging.getLogger(__name__)

NOBODY_KNOWS = ""  # from which queue it came
ENDED = 0  # the score of what a process had in hand that is known to have died
ACK_S = 0.01  # how long an acknowledgement waits for others to go with


class Unacked(kombu_redis.QoS):
    """Messages in hand are noted by the script that takes them; acknowledgements go in batches.

    One that is lost with its worker only brings back a message whose job has ended. Those of a
    connection that was lost go with the next one: `acked` is shared by all of a process.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_due = False

    @property
    def acked(self) -> list[str]:
        found: list[str] = self.channel.shared.acked
        return found

    def can_consume(self) -> bool:
        """Whether there is room; what is asked for already is to be read in any case."""
        return not self.prefetch_count or bool(self.channel._in_poll) or self.channel.has_room

    def append(self, message: Any, delivery_tag: str) -> None:
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        self.acked.append(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)
        hub = get_event_loop()
        if hub is None:
            self.flush()
        elif not self._is_due:
            self._is_due = True
            hub.call_later(ACK_S, self._flush_due)

    def _flush_due(self) -> None:
        """No more than one is due: the hub calls few in a turn, and heartbeats must not wait."""
        self._is_due = False
        self.flush()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """What cannot be given back now is by a sweep, when its lease has ended."""
        if not requeue:
            self.ack(delivery_tag)
            return
        try:
            self.restore_by_tag(delivery_tag, leftmost=True)
        except (*self.channel.connection_errors, RedisError) as e:
            log.warning("a message is redelivered only when its lease ends: %s", e)
        virtual.QoS.ack(self, delivery_tag)

    def flush(self) -> None:
        """Acknowledge what has not been yet; what cannot be is left for the next time."""
        tags = list(self.acked)
        if not tags:
            return
        try:
            with self.pipe_or_acquire() as pipe:
                pipe.zrem(self.unacked_index_key, *tags)
                pipe.hdel(self.unacked_key, *tags)
                pipe.execute()
        except (*self.channel.connection_errors, RedisError) as e:
            log.warning("%d messages are not acknowledged yet: %s", len(tags), e)
        else:
            del self.acked[: len(tags)]

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """Nothing: `sweep` does it, by Redis's clock; kombu would by that of this machine."""

    def sweep(self, max_count: int, may_all: Callable[[float], bool]) -> None:
        """Give out again what no worker has renewed; what Redis refuses now it may allow later.

        `may_all` is asked with Redis's time whether all who live could renew what they have: if
        not, only what is known to be of the dead is. What is due long after a lease was so before
        Redis's clock was put back.
        """
        self.flush()  # what could not be acknowledged while Redis was away is nobody's
        try:
            with self.channel.conn_or_acquire() as client, self._mutex(client):
                seconds, micros = client.time()
                now, lease_s = seconds + micros / 1e6, self.visibility_timeout
                due = [(now - lease_s, "-inf"), ("+inf", now + lease_s)]
                for high, low in due if may_all(now) else [(ENDED, "-inf")]:
                    # The only one of its kind for which kombu knows its prefix.
                    found = client.zrevrangebyscore(self.unacked_index_key, high, low, 0, max_count)
                    for tag in found:
                        self.restore_by_tag(tag, client)
        except kombu_redis.MutexHeld:
            return
        except self.channel.connection_errors:
            raise
        except RedisError as e:
            log.warning("messages of dead workers are not redelivered for now: %s", e)

    def _mutex(self, client: Any) -> Any:
        """One worker sweeps at a time."""
        return kombu_redis.Mutex(client, self.unacked_mutex_key, self.unacked_mutex_expire)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Give a message out again; garbage in its place must not keep all others from it.

        Without kombu's WATCH, which hardly ever succeeds while many workers are busy. What is
        given out twice that way is known by its job.
        """
        try:
            self._restore(tag, client, leftmost)
        except (*self.channel.connection_errors, RedisError):
            raise
        except Exception as e:  # noqa: BLE001 - kombu takes for granted what lies there
            with self.channel.conn_or_acquire(client) as found:
                raw = found.hget(self.unacked_key, tag) or b""
                self.channel.shared.set_aside(
                    NOBODY_KNOWS,
                    raw,
                    InvalidMessage(f"an unacknowledged entry is not a message: {described(e)}"),
                )
                found.hdel(self.unacked_key, tag)
                found.zrem(self.unacked_index_key, tag)

    def _restore(self, tag: str, client: Any, leftmost: bool) -> None:
        with self.channel.conn_or_acquire(client) as found:
            raw = found.hget(self.unacked_key, tag)
            with found.pipeline(transaction=True) as pipe:
                self._remove_from_indices(tag, pipe)
                if raw:
                    message, exchange, routing_key = loads(raw)
                    message["headers"]["id"]  # of garbage, kombu would only say that it is lost
                    self.channel._do_restore_message(message, exchange, routing_key, pipe, leftmost)
                pipe.execute()

    @contextmanager
    def pipe_or_acquire(self, pipe: Any = None, client: Any = None) -> Iterator[Any]:
        with self.channel.conn_or_acquire(client) as found:
            yield pipe or found.pipeline(transaction=False)
