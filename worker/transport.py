"""kombu's Redis transport, letting through to Celery only what Celery can take.

One entry of a queue's list that is no message ends a Celery worker, and the next one that
takes it. With `worker/lease.py` this is where kombu's inside is known; a test fails when
kombu changes it.
"""

import logging
import time
import uuid
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty
from typing import Any

from kombu import transport as kombu_transport
from kombu.asynchronous import get_event_loop
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps, loads
from redis.exceptions import OutOfMemoryError, RedisError

from crossmodal.errors import CrossmodalError, InvalidMessage, described
from crossmodal.jobs.connection import address_of, sentinel_options
from crossmodal.jobs.message import EMPTY_BODY, parse_message
from crossmodal.jobs.names import EXPIRES_HEADER, Task
from crossmodal.settings import Settings
from worker.calls import check_embedded, check_headers

log = logging.getLogger(__name__)

NOBODY_KNOWS = ""  # from which queue it came
ACK_S = 0.01  # how long an acknowledgement waits for a message to go with
TASKS = frozenset(task.celery_name for task in Task)
REPLIES = ".reply.celery.pidbox"  # how queues end that answers to remote control come in
SetAside = Callable[[str, bytes, CrossmodalError], None]


class BatchedAcks(kombu_redis.QoS):
    """kombu's record of messages in hand, for one call to Redis a message instead of eight.

    An acknowledgement goes with the next message that is noted, or alone a moment later. One
    that is lost with its worker only brings back a message whose job has ended.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._acked: list[str] = []
        self._is_due = False

    def append(self, message: Any, delivery_tag: str) -> None:
        info = message.delivery_info
        raw = dumps([message._raw, info["exchange"], info["routing_key"]])
        # The score first: what has none would be in nobody's hands for ever.
        with self.pipe_or_acquire() as pipe:
            pipe.zadd(self.unacked_index_key, {delivery_tag: time.time()})
            pipe.hset(self.unacked_key, delivery_tag, raw)
            self._execute(pipe)
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        self._acked.append(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)
        hub = get_event_loop()
        if hub is None:
            self.flush()
        elif not self._is_due:
            self._is_due = True
            hub.call_later(ACK_S, self.flush)

    def flush(self) -> None:
        """Acknowledge what has not been yet; what cannot be is left for the next time."""
        self._is_due = False
        try:
            with self.pipe_or_acquire() as pipe:
                self._execute(pipe)
        except (*self.channel.connection_errors, RedisError) as e:
            log.warning("%d messages are not acknowledged yet: %s", len(self._acked), e)

    def _execute(self, pipe: Any) -> None:
        acked = list(self._acked)
        if acked:
            pipe.zrem(self.unacked_index_key, *acked)
            pipe.hdel(self.unacked_key, *acked)
        pipe.execute()
        del self._acked[: len(acked)]

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
                type(self.channel).set_aside(NOBODY_KNOWS, raw, InvalidMessage(
                    f"what lay among the messages in hand is none: {described(e)}"
                ))  # fmt: skip
                found.hdel(self.unacked_key, tag)
                found.zrem(self.unacked_index_key, tag)

    def _restore(self, tag: str, client: Any, leftmost: bool) -> None:
        with self.channel.conn_or_acquire(client) as found:
            raw = found.hget(self.unacked_key, tag)
            with found.pipeline(transaction=True) as pipe:
                self._remove_from_indices(tag, pipe)
                if raw:
                    message, exchange, routing_key = loads(raw)
                    self.channel._do_restore_message(message, exchange, routing_key, pipe, leftmost)
                pipe.execute()

    @contextmanager
    def pipe_or_acquire(self, pipe: Any = None, client: Any = None) -> Iterator[Any]:
        with self.channel.conn_or_acquire(client) as found:
            yield pipe or found.pipeline(transaction=False)


class CheckedChannel(kombu_redis.Channel):
    """Reads like its parent, and checks; its class attributes are set by `install`."""

    QoS = BatchedAcks
    max_bytes: int
    set_aside: SetAside
    polled_at = 0.0  # when Redis last answered a BRPOP, by the monotonic clock

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._held: tuple[str, bytes] | None = None
        self._caller: Any = None
        super().__init__(*args, **kwargs)

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """A client that is made once: making one takes longer than what it is made for."""
        if self._caller is None:
            self._caller = self._create_client()
        yield client or self._caller

    def _restore(self, message: Any, leftmost: bool = False) -> None:
        self.qos.restore_by_tag(message.delivery_tag, leftmost=leftmost)

    def close(self) -> None:
        if not self.closed and self._qos is not None:
            self._qos.flush()
        super().close()

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Take no more while there is a message in hand for which Redis has no memory."""
        if self._held is not None:
            queue, raw = self._held
            self._held = None
            self._let_through(queue, raw)
        if self._held is None:
            super()._brpop_start(timeout)

    def _brpop_read(self, **options: Any) -> bool:
        try:
            reply = self._brpop_reply(options)
        finally:
            self._in_poll = None
        type(self).polled_at = time.monotonic()
        if not reply:
            raise Empty
        queue = reply[0].decode().rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        if queue.endswith(REPLIES):
            self.connection._deliver(loads(reply[1]), queue)
        else:
            self._let_through(queue, reply[1])
        return True

    def _receive_one(self, connection: Any) -> Any:
        """A remote control command; one that is none must not end the worker."""
        try:
            return super()._receive_one(connection)
        except (*self.connection_errors, RedisError, Empty):
            raise
        except Exception:
            log.exception("what was broadcast is no remote control command")
            raise Empty from None

    def _brpop_reply(self, options: dict[str, Any]) -> Any:
        try:
            return self.client.parse_response(self.client.connection, "BRPOP", **options)
        except self.connection_errors:
            self.client.connection.disconnect()  # the next poll connects anew
            raise

    def _let_through(self, queue: str, raw: bytes) -> None:
        try:
            message = parse_message(raw, self.max_bytes, TASKS)
            check_headers(message["headers"])
            if message["body"] != EMPTY_BODY:
                check_arguments(message["body"], message["properties"])
        except InvalidMessage as e:
            type(self).set_aside(queue, raw, e)
            return
        take_over(message)
        try:
            self.connection._deliver(message, queue)
        except OutOfMemoryError as e:  # it is in no list any more, so it must not be dropped
            log.error("Redis has no memory for what it handed out: %s", e)
            type(self).polled_at = time.monotonic()
            self._held = (queue, raw)
        except (*self.connection_errors, RedisError):
            raise
        except Exception as e:  # whatever Celery stumbles over must not be given to it again
            log.exception("Celery cannot take a message from %s", queue)
            self.qos.ack(message["properties"]["delivery_tag"])
            type(self).set_aside(
                queue, raw, InvalidMessage(f"Celery cannot take it: {described(e)}")
            )


def check_arguments(body: str, properties: dict[str, Any]) -> None:
    """Decode a call as Celery will, where some dictionaries have a meaning of their own.

    Raises `InvalidMessage`.
    """
    try:
        _, _, embedded = loads(b64decode(body) if properties.get("body_encoding") else body)
    except Exception as e:  # kombu lets its decoders raise anything
        raise InvalidMessage(f"its arguments cannot be decoded: {described(e)}") from e
    check_embedded(embedded)


def take_over(message: dict[str, Any]) -> None:
    """Change what is for the ledger and the settings to decide, and not for a sender."""
    headers = message["headers"]
    headers["timelimit"] = [None, None]
    if headers.get("expires") is not None:  # it may have been taken over before
        headers[EXPIRES_HEADER], headers["expires"] = headers["expires"], None
    # Two copies of one message share a tag: the acknowledgement of one would be of both.
    message["properties"]["delivery_tag"] = str(uuid.uuid4())


class CheckedSentinelChannel(CheckedChannel, kombu_redis.SentinelChannel):
    """The same for a Redis that is found through Sentinels."""

    sentinel_options: dict[str, Any]

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        """Ask the Sentinels as they want it; kombu's option would show their password."""
        self.sentinel_kwargs = self.sentinel_options
        return super()._sentinel_managed_pool(asynchronous)


def install(settings: Settings, set_aside: SetAside) -> None:
    """Have this process check what it takes from any queue; what is no message is `set_aside`."""
    limits: dict[str, Any] = {
        "max_bytes": settings.max_message_bytes,
        "set_aside": staticmethod(set_aside),
    }
    address = address_of(settings)
    base = kombu_redis.Transport
    channel = CheckedChannel
    if address.is_sentinel:
        base, channel = kombu_redis.SentinelTransport, CheckedSentinelChannel
        limits["sentinel_options"] = sentinel_options(settings, address)
    transport = type("Transport", (base,), {"Channel": type("Channel", (channel,), limits)})
    # Not `broker_transport`: then URLs are shown as classes.
    TRANSPORT_ALIASES[address.scheme] = lambda: transport
    kombu_transport._transport_cache.pop(address.scheme, None)  # of who has connected before
