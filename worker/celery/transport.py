"""kombu's Redis transport: takes as much as there is room for, and checks each message.

A list entry that is no message would end a Celery worker, and the next one that takes it. Like
`unacked.py` and `lease.py` this depends on kombu's internals; a test fails when those change.
"""

import logging
import math
import time
from queue import Empty
from typing import Any

from kombu import transport as kombu_transport
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from kombu.utils.json import loads
from redis.exceptions import BusyLoadingError, OutOfMemoryError, RedisError, ResponseError

from crossmodal.errors import InvalidMessage, described
from crossmodal.jobs import idle
from crossmodal.jobs.connection import address_of, sentinel_options
from crossmodal.jobs.message import URGENT, parse_message
from crossmodal.settings import Settings
from worker.celery.broadcast import REPLIES
from worker.celery.calls import TASKS, check_call, take_over
from worker.celery.lanes import Lane, Lanes
from worker.celery.polled import Polled, Poller, SetAside, Shared
from worker.celery.take import Taken, Taker
from worker.celery.unacked import Unacked

log = logging.getLogger(__name__)

SOON_S = 0.05
AGAIN_S = 1.0  # wait after Redis refused something that it may accept later
REFUSALS = (ResponseError, BusyLoadingError)  # errors of a server that is reachable
MAX_TAKES = 10  # in a row, before Celery's loop goes on
MAX_TAKES_S = 0.5  # and max duration: garbage is slow to handle


class CheckedChannel(Polled):
    """A channel that takes messages by lanes and checks them.

    A lane that has room is either in the BRPOP that waits in Redis, or in `_more`, for which a
    script takes at once. So no message of a lane waits for a BRPOP that was sent without it.
    """

    QoS = Unacked
    priority_steps = [URGENT, *kombu_redis.PRIORITY_STEPS]  # noqa: RUF012 - as kombu has it
    min_priority = URGENT

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._more: set[Lane] = set()
        self._not_before = 0.0
        self.refusal = ""  # why Redis delivers nothing for now
        super().__init__(*args, **kwargs)

    def _restore(self, message: Any, leftmost: bool = False) -> None:
        self.qos.restore_by_tag(message.delivery_tag, leftmost=leftmost)

    def close(self) -> None:
        """Close the channel; messages of jobs that still run are not requeued."""
        if not self.closed and self._qos is not None:
            self._qos.flush()
            self._give_held_back()
            for tag in self.shared.lanes.tags:
                self._qos._delivered.pop(tag, None)
        super().close()

    def _give_held_back(self) -> None:
        """Return the held messages to their queues, if Redis accepts them now."""
        try:
            with self.conn_or_acquire() as client:
                while held := self.shared.held:
                    queue, raw = held[-1]
                    client.rpush(queue, raw)
                    held.pop()
        except (*self.connection_errors, RedisError) as e:
            log.warning(
                "%d messages are held until Redis accepts them: %s", len(self.shared.held), e
            )

    # Taking messages

    @property
    def has_room(self) -> bool:
        return any(lane.room for lane in self.shared.lanes)

    def take_more(self) -> None:
        """Take at once what is known to wait, as much as there is room for."""
        until = time.monotonic() + MAX_TAKES_S
        for _ in range(MAX_TAKES):
            lanes = [lane for lane in self._more if lane.room]
            is_late = time.monotonic() > until
            if is_late or not lanes or not self.active_queues or not self._may_ask():
                return
            self._take(lanes)

    def _may_ask(self) -> bool:
        return time.monotonic() >= self._not_before

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Send a BRPOP for the next message of any lane that has room."""
        if not self._may_ask():
            return
        if held := self.shared.held:
            self._take([], held.pop())
            if held:
                return
        lanes = self.shared.lanes
        self._more = {lane for lane in lanes if not lane.room}
        queues = [queue for queue in self._in_turn() if queue.endswith(REPLIES)]
        keys = self._lists_of(queues)
        for lane in lanes:
            if lane.room:
                keys += self._lists_of(self._queues_of(lane))
        if not keys:
            return
        # A connection that was idle for so long may have been dropped by a NAT.
        if 0 < self.client.connection.next_health_check < time.monotonic():
            self._hang_up()
            return
        self._in_poll = self.client.connection
        prefixed = [self.global_keyprefix + key for key in keys]
        # A lane that is not in this BRPOP must not wait long once it has room.
        wait_s = SOON_S if self._more else timeout or self.brpop_timeout or 0
        self._answer_due = time.monotonic() + wait_s + self.patience_s
        try:
            self.client.connection.send_command("BRPOP", *prefixed, wait_s)
        except self.connection_errors as e:
            self._lose_messages(e)

    def _lose_messages(self, error: Exception) -> None:
        log.warning("the connection for messages is lost: %s", error)
        self._hang_up()

    def _in_turn(self) -> list[str]:
        found: list[str] = self._queue_cycle.consume(len(self.active_queues))
        return found

    def _queues_of(self, lane: Lane) -> list[str]:
        lanes = self.shared.lanes
        return [q for q in self._in_turn() if lanes.of(q) is lane and not q.endswith(REPLIES)]

    def _lists_of(self, queues: list[str]) -> list[str]:
        return [self._q_for_pri(queue, pri) for pri in self.priority_steps for queue in queues]

    def _brpop_read(self, **options: Any) -> bool:
        try:
            reply = self._brpop_reply(options)
        finally:
            self._in_poll = None
        if not reply:
            raise Empty
        name, raw = reply[0].decode(), reply[1]
        queue = name.rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        if self._closing or queue not in self.active_queues:
            self._put_back(name, queue, raw)
        elif queue.endswith(REPLIES):
            self.connection._deliver(loads(raw), queue)
        else:
            lane = self.shared.lanes.of(queue)
            self._take([lane, *(self._more - {lane})], (queue, raw))
        return True

    def _put_back(self, name: str, queue: str, raw: bytes) -> None:
        """Return an unwanted message to its list; hold it if Redis does not accept it now."""
        try:
            with self.conn_or_acquire() as client:
                client.rpush(name, raw)
        except (*self.connection_errors, RedisError) as e:
            log.warning("a message of an unconsumed queue is held until Redis accepts it: %s", e)
            self.shared.held.append((queue, raw))

    def _brpop_reply(self, options: dict[str, Any]) -> Any:
        self._answer_due = math.inf
        try:
            reply = self.client.parse_response(self.client.connection, "BRPOP", **options)
        except REFUSALS as e:
            self._put_off(e)
            return None
        except self.connection_errors as e:
            self._lose_messages(e)
            return None
        self.shared.polled_at = time.monotonic()
        self.shared.deaf.note_success()
        self.refusal = ""
        if not reply:  # a message may be refused yet, as when Redis is full
            self.shared.refused.note_success()
        return reply

    def _put_off(self, error: RedisError) -> None:
        """Retry soon, on a new connection, after a refusal, as by a replica or while Redis loads.

        It is no reason to end, nor for Celery to restart its consumer.
        """
        self.shared.refused.warn(error)
        self.refusal = str(error)
        self._not_before = time.monotonic() + AGAIN_S
        self.shared.polled_at = time.monotonic()
        if not isinstance(error, OutOfMemoryError):
            self._hang_up()

    def _take(self, lanes: list[Lane], given: tuple[str, bytes] | None = None) -> None:
        """Note the message that BRPOP returned, and take and note more for some lanes."""
        of_given = self.shared.lanes.of(given[0]) if given else None
        wanted = [
            (lane, max(0, lane.room - (lane is of_given)), self._queues_of(lane)) for lane in lanes
        ]
        try:
            with self.conn_or_acquire() as client:
                taken = Taker(self, client).take([one[1:] for one in wanted], given)
        except RedisError as e:
            if given is not None:  # it is in no list any more
                self.shared.held.append(given)
            if not isinstance(e, REFUSALS):
                raise
            self._put_off(e)
            self.qos.flush()  # frees memory, and needs none
            return
        self.shared.polled_at = time.monotonic()
        self.shared.refused.note_success()
        for lane, room, queues in wanted:
            count = sum(one.queue in queues for one in taken) - (lane is of_given)
            (self._more.discard if count < room else self._more.add)(lane)
        self._deliver_all(taken)

    def _deliver_all(self, taken: list[Taken]) -> None:
        """Deliver to Celery what was taken; what Redis's failures prevent is redelivered later."""
        failure: Exception | None = None
        for one in taken:
            try:
                self._let_through(one)
            except (*self.connection_errors, RedisError) as e:
                failure = e
        if failure is not None:
            raise failure
        if taken:
            self._queue_cycle.rotate(taken[-1].queue)

    def _let_through(self, taken: Taken) -> None:
        try:
            message = parse_message(taken.raw, self.shared.max_bytes, TASKS)
            check_call(message)
            take_over(message, taken.queue, taken.tag)
        except InvalidMessage as e:
            self.set_aside(taken, e)
            return
        except Exception as e:  # it would end every worker that takes it
            log.exception("a message from %s cannot be checked", taken.queue)
            self.set_aside(taken, InvalidMessage(f"it cannot be checked: {described(e)}"))
            return
        try:
            self.connection._deliver(message, taken.queue)
        except (*self.connection_errors, RedisError):
            raise
        except Exception as e:  # a message that makes Celery fail must not be redelivered
            log.exception("Celery cannot take a message from %s", taken.queue)
            self.set_aside(taken, InvalidMessage(f"Celery cannot take it: {described(e)}"))

    def set_aside(self, taken: Taken, error: InvalidMessage) -> None:
        """Acknowledge an invalid message and keep it as a dead letter."""
        self.qos.ack(taken.tag)
        self.qos.flush()
        self.shared.set_aside(taken.queue, taken.raw, error)


class CheckedSentinelChannel(CheckedChannel, kombu_redis.SentinelChannel):
    """The same for a Redis found through Sentinels."""

    sentinel_options: dict[str, Any]
    connection_class = idle.Master
    connection_class_ssl = idle.MasterTls

    def _connparams(self, asynchronous: bool = False) -> Any:
        """Return the options of connections; kombu omits the health check of Sentinel's."""
        found = super()._connparams(asynchronous)
        return found | {"health_check_interval": self.health_check_interval}

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        """Set the Sentinels' options; kombu's own option would show their password."""
        self.sentinel_kwargs = self.sentinel_options
        return super()._sentinel_managed_pool(asynchronous)


class CheckedTransport(kombu_redis.Transport):
    """A mixin for both of kombu's transports."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Make the hub poll this connection, and no earlier one."""
        shared: Shared = self.Channel.shared
        loop.on_tick -= shared.ticks
        known = set(loop.on_tick)
        super().register_with_event_loop(connection, loop)
        shared.ticks = loop.on_tick - known

    def establish_connection(self) -> Any:
        """Connect to a Redis that accepts writes; no job could begin on any other."""
        made = super().establish_connection()
        [channel] = self._avail_channels
        with channel.conn_or_acquire() as client:
            client.zrem(channel.unacked_index_key, "")
        return made


def install(settings: Settings, set_aside: SetAside, lanes: Lanes) -> None:
    """Make this process check what it takes from any queue; invalid messages go to `set_aside`."""
    own: dict[str, Any] = {"shared": Shared(settings.max_message_bytes, set_aside, lanes)}
    address = address_of(settings)
    base = kombu_redis.Transport
    channel = CheckedChannel
    if address.is_sentinel:
        base, channel = kombu_redis.SentinelTransport, CheckedSentinelChannel
        own["sentinel_options"] = sentinel_options(settings, address)
    kind = type("Channel", (channel,), own)
    transport = type("Transport", (CheckedTransport, base), {"Channel": kind})
    # Not `broker_transport`: with it, URLs are displayed as classes.
    TRANSPORT_ALIASES[address.scheme] = lambda: transport
    kombu_transport._transport_cache.pop(address.scheme, None)  # of earlier connections
