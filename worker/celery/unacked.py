"""kombu's record of the messages in hand, which any worker's sweep redelivers.

Like `transport.py` and `lease.py` this depends on kombu's internals; a test fails when those
change.
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

NOBODY_KNOWS = ""  # stands for the queue of garbage in the record
ENDED = 0  # the score of messages of a process that is known to have died
ACK_S = 0.01  # how long an acknowledgement waits to be batched


class Unacked(kombu_redis.QoS):
    """The messages in hand: noted by the script that takes them, acknowledged in batches.

    An acknowledgement that is lost with its worker only redelivers a message whose job has ended.
    Those of a lost connection go with the next one: all channels of a process share `acked`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_due = False

    @property
    def acked(self) -> list[str]:
        found: list[str] = self.channel.shared.acked
        return found

    def can_consume(self) -> bool:
        """Return whether there is room; the answer to a BRPOP that was sent is read in any case."""
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
        """Flush. Only one such timer is ever pending: many would delay heartbeats."""
        self._is_due = False
        self.flush()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Drop or requeue a message; if requeuing fails, a sweep does it when the lease ends."""
        if not requeue:
            self.ack(delivery_tag)
            return
        try:
            self.restore_by_tag(delivery_tag, leftmost=True)
        except (*self.channel.connection_errors, RedisError) as e:
            log.warning("a message is redelivered only when its lease ends: %s", e)
        virtual.QoS.ack(self, delivery_tag)

    def flush(self) -> None:
        """Send the pending acknowledgements; those that fail are left for the next time."""
        tags = list(self.acked)
        if not tags:
            self.channel.shared.not_acknowledged.note_success()
            return
        try:
            with self.pipe_or_acquire() as pipe:
                pipe.zrem(self.unacked_index_key, *tags)
                pipe.hdel(self.unacked_key, *tags)
                pipe.execute()
        except (*self.channel.connection_errors, RedisError) as e:
            self.channel.shared.not_acknowledged.warn(len(tags), e)
        else:
            del self.acked[: len(tags)]
            self.channel.shared.not_acknowledged.note_success()

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """Do nothing: `sweep` does it, by Redis's clock; kombu would use this machine's."""

    def sweep(self, max_count: int, may_all: Callable[[float], bool]) -> None:
        """Redeliver messages whose lease was not renewed; log what Redis refuses for now.

        `may_all` gets Redis's time and returns whether all live workers could renew their leases;
        if not, only messages of processes known to be dead are redelivered. A score more than a
        lease in the future is from before Redis's clock was set back, and counts as due.
        """
        self.flush()  # else what was acknowledged while Redis was away would be redelivered
        try:
            with self.channel.conn_or_acquire() as client, self._mutex(client):
                seconds, micros = client.time()
                now, lease_s = seconds + micros / 1e6, self.visibility_timeout
                due = [(now - lease_s, "-inf"), ("+inf", now + lease_s)]
                for high, low in due if may_all(now) else [(ENDED, "-inf")]:
                    # The only range command to which kombu adds its prefix.
                    found = client.zrevrangebyscore(self.unacked_index_key, high, low, 0, max_count)
                    for tag in found:
                        self.restore_by_tag(tag, client)
        except kombu_redis.MutexHeld:
            return
        except (*self.channel.connection_errors, RedisError) as e:  # no reason to begin anew
            self.channel.shared.not_swept.warn(e)
        else:
            self.channel.shared.not_swept.note_success()

    def _mutex(self, client: Any) -> Any:
        """Return the lock with which one worker sweeps at a time."""
        return kombu_redis.Mutex(client, self.unacked_mutex_key, self.unacked_mutex_expire)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Redeliver a message; set garbage in its place aside, or it would block the others.

        Without kombu's WATCH, which rarely succeeds while many workers are busy. A message that is
        redelivered twice for that reason is recognized by its job.
        """
        try:
            self._restore(tag, client, leftmost)
        except (*self.channel.connection_errors, RedisError):
            raise
        except Exception as e:  # noqa: BLE001 - kombu does not check what it reads
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
                    message["headers"]["id"]  # raises for garbage: kombu would report it as lost
                    self.channel._do_restore_message(message, exchange, routing_key, pipe, leftmost)
                pipe.execute()

    @contextmanager
    def pipe_or_acquire(self, pipe: Any = None, client: Any = None) -> Iterator[Any]:
        with self.channel.conn_or_acquire(client) as found:
            yield pipe or found.pipeline(transaction=False)
