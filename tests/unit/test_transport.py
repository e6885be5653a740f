"""kombu, inside, as `worker/celery` and `worker/recovery.py` take it to be; and what we change.

When one of these fails, they must be read beside kombu's new Redis transport.
"""

import inspect
import json
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Connection
from kombu.transport import get_transport_cls
from kombu.transport.redis import Channel, MultiChannelPoller, QoS, SentinelChannel, Transport
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from crossmodal.errors import CrossmodalError, InvalidMessage
from crossmodal.jobs.connection import transport_options
from crossmodal.jobs.message import message_of
from crossmodal.jobs.names import EXPIRES_HEADER, celery_prefix, messages_key
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.local.valkey import free_port, valkey_url
from crossmodal.settings import Settings, load_settings
from tests.celery_app import as_before
from tests.waiting import until
from worker.celery.broadcast import BroadcastChannel
from worker.celery.calls import MAX_DEPTH, check_depth, take_over
from worker.celery.lanes import Lanes
from worker.celery.polled import Polled, Poller
from worker.celery.take import Taker
from worker.celery.transport import CheckedChannel, install
from worker.celery.unacked import Unacked
from worker.recovery import PRIORITIES, UNACKED

SetAside = list[tuple[str, bytes, CrossmodalError]]


@pytest.fixture
def aside() -> SetAside:
    """What the channel has set aside."""
    return []


@pytest.fixture
def channel(settings: Settings, aside: SetAside) -> Iterator[Any]:
    """A channel of our transport, as a worker's."""
    with as_before():
        install(settings, lambda *what: aside.append(what), Lanes(8, 2))
        options = transport_options(settings)
        url = settings.broker_url.get_secret_value()
        with Connection(url, transport_options=options) as connection:
            yield connection.channel()


def key(settings: Settings, name: str) -> str:
    return celery_prefix(settings.key_prefix) + name


def a_message(job_id: str = "a-job") -> str:
    return message_of(job_id, Txt2ImgParams(prompt="a circle", seed=1))


def private_to(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("__")}


# What kombu does


def test_the_lease_renews_what_kombu_sweeps_by() -> None:
    sweep = inspect.signature(QoS.restore_visible).parameters
    assert {"num", "interval"} <= set(sweep)
    assert "time()" in inspect.getsource(QoS.append)  # the score of a tag is the local time
    assert "self._delivered[delivery_tag]" in inspect.getsource(QoS.__mro__[1])
    assert "visibility_timeout" in inspect.getsource(QoS.restore_visible)
    options = set(Channel.from_transport_options)
    assert {"visibility_timeout", "unacked_mutex_expire", "unacked_index_key"} <= options


def test_the_checked_channel_reads_as_kombu_does() -> None:
    source = inspect.getsource(Channel._brpop_read)
    for part in (
        "parse_response",
        "rsplit(self.sep, 1)",
        "_queue_cycle.rotate(dest)",
        "self.connection._deliver(loads(bytes_to_str(item)), dest)",
        "self._in_poll = None",
        "raise Empty()",
    ):
        assert part in source
    source = inspect.getsource(Channel._brpop_start)
    for part in (
        "self._queue_cycle.consume(len(self.active_queues))",
        "for pri in self.priority_steps",
        "for queue in queues",
        "self._in_poll = self.client.connection",
        "send_command",
    ):
        assert part in source
    assert Channel.sep == "\x06\x16"
    assert private_to(CheckedChannel) & private_to(Channel) == {
        "_brpop_read",
        "_brpop_start",
        "_restore",
        "QoS",
        "close",
        "priority_steps",
    }
    assert private_to(Polled) & private_to(Channel) == {
        "_on_connection_disconnect",
        "_receive",
        "_receive_one",
        "conn_or_acquire",
        "pool",
    }
    assert private_to(BroadcastChannel) & private_to(Channel) == {"_delete", "_size"}


def test_the_poller_asks_channels_as_kombu_does() -> None:
    assert "channel._brpop_start()" in inspect.getsource(MultiChannelPoller._register_BRPOP)
    source = inspect.getsource(MultiChannelPoller.on_poll_start)
    for part in ("channel.active_queues", "channel.qos.can_consume()", "_register_BRPOP(channel)"):
        assert part in source
    own = private_to(Poller) & private_to(MultiChannelPoller)
    assert own == {"discard", "get", "maybe_check_subclient_health", "on_poll_start", "on_readable"}
    source = inspect.getsource(MultiChannelPoller.on_readable)
    for part in ("self._fd_to_chan[fileno]", "chan.handlers[type]()"):
        assert part in source
    assert "self.cycle = MultiChannelPoller()" in inspect.getsource(Transport.__init__)
    source = inspect.getsource(MultiChannelPoller._register)
    assert "self._fd_to_chan[sock.fileno()] = (channel, type)" in source
    assert "self._chan_to_sock[(channel, client, type)] = sock" in source
    assert "if channel._registered:" in inspect.getsource(Channel._connparams)


def test_messages_in_hand_are_noted_as_kombu_notes_them() -> None:
    append, ack = inspect.getsource(QoS.append), inspect.getsource(QoS.ack)
    for part in (
        "zadd(self.unacked_index_key",
        "hset(self.unacked_key, delivery_tag,",
        "dumps([message._raw, EX, RK])",
        "super().append(message, delivery_tag)",
    ):
        assert part in append
    assert "_remove_from_indices(delivery_tag).execute()" in ack
    assert "super().ack(delivery_tag)" in ack
    removed = inspect.getsource(QoS._remove_from_indices)
    assert "zrem(self.unacked_index_key" in removed
    assert "hdel(self.unacked_key" in removed
    assert "yield self._create_client()" in inspect.getsource(Channel.conn_or_acquire)
    assert private_to(Unacked) & private_to(QoS) == {
        "append",
        "ack",
        "pipe_or_acquire",
        "reject",
        "restore_by_tag",
        "restore_visible",
    }


def test_a_message_that_is_not_wanted_is_given_back_as_by_the_sweep() -> None:
    source = inspect.getsource(Channel._restore)
    for part in (
        "tag = message.delivery_tag",
        "pipe.hget(self.unacked_key, tag)",
        "self._do_restore_message(M, EX, RK, pipe, leftmost)",
    ):
        assert part in source


def test_messages_in_hand_are_where_the_recovery_searches() -> None:
    assert Channel.unacked_key == UNACKED
    assert tuple(CheckedChannel.priority_steps) == PRIORITIES
    known = {messages_key("crossmodal", "q", step) for step in Channel.priority_steps}
    assert known == {"q" + (f"{Channel.sep}{step}" if step else "") for step in (0, 3, 6, 9)}
    assert "lpush" in inspect.getsource(Channel._put)


def test_a_redis_url_leads_to_the_checked_transport() -> None:
    with as_before():
        for scheme, parent in {
            "redis": Channel,
            "rediss": Channel,
            "sentinel": SentinelChannel,
        }.items():
            get_transport_cls(scheme)  # kombu remembers what it has found
            install(load_settings(broker_url=f"{scheme}://h"), lambda *what: None, Lanes())
            found = get_transport_cls(scheme)
            assert issubclass(found, Transport)
            assert issubclass(found.Channel, CheckedChannel)
            assert issubclass(found.Channel, parent)


# Taking


def test_what_is_taken_is_noted_and_leaves_its_list(
    channel: Any, settings: Settings, admin: Any
) -> None:
    admin.lpush(key(settings, "txt2img"), "1", "2", "3")
    taken = Taker(channel, channel._create_client()).take([(2, ["txt2img"])], None)
    assert [(one.queue, one.raw) for one in taken] == [("txt2img", b"1"), ("txt2img", b"2")]
    assert admin.hgetall(key(settings, "unacked")) == {
        taken[0].tag: '[1,"","txt2img"]',
        taken[1].tag: '[2,"","txt2img"]',
    }
    assert admin.zcard(key(settings, "unacked_index")) == 2
    assert admin.lrange(key(settings, "txt2img"), 0, -1) == ["3"]


def test_what_brpop_gave_is_noted_with_the_rest(
    channel: Any, settings: Settings, admin: Any
) -> None:
    admin.lpush(key(settings, "txt2img"), "2")
    given = ("img2txt", b"1")
    taken = Taker(channel, channel._create_client()).take([(5, ["txt2img"])], given)
    assert [(one.queue, one.raw) for one in taken] == [("img2txt", b"1"), ("txt2img", b"2")]
    noted = admin.hgetall(key(settings, "unacked"))
    assert [noted[one.tag] for one in taken] == ['[1,"","img2txt"]', '[2,"","txt2img"]']


def test_queues_give_equal_shares_and_urgent_messages_come_first(
    channel: Any, settings: Settings, admin: Any
) -> None:
    admin.lpush(key(settings, "txt2img"), *(f'"t{n}"' for n in range(9)))
    admin.lpush(key(settings, "img2txt"), '"i0"')
    admin.lpush(key(settings, "celery"), *(f'"c{n}"' for n in range(9)))
    admin.lpush(key(settings, "img2txt\x06\x163"), '"later"')
    queues = ["txt2img", "img2txt", "celery"]
    taken = Taker(channel, channel._create_client()).take([(7, queues)], None)
    assert [json.loads(one.raw) for one in taken] == ["t0", "t1", "t2", "i0", "c0", "c1", "c2"]
    taken = Taker(channel, channel._create_client()).take([(50, queues)], None)
    assert json.loads(taken[-1].raw) == "later"
    assert len(taken) == 13


def test_lanes_give_no_more_than_each_has_room_for(
    channel: Any, settings: Settings, admin: Any
) -> None:
    for queue in ("txt2img", "txt2img.bulk"):
        admin.lpush(key(settings, queue), "1", "2", "3")
    lanes = [(2, ["txt2img"]), (1, ["txt2img.bulk"])]
    taken = Taker(channel, channel._create_client()).take(lanes, None)
    assert [one.queue for one in taken] == ["txt2img", "txt2img", "txt2img.bulk"]


def test_acknowledgements_go_along(channel: Any, settings: Settings, admin: Any) -> None:
    admin.hset(key(settings, "unacked"), "tag", "message")
    admin.zadd(key(settings, "unacked_index"), {"tag": 1})
    channel.shared.acked.append("tag")
    Taker(channel, channel._create_client()).take([], None)
    assert admin.exists(key(settings, "unacked"), key(settings, "unacked_index")) == 0
    assert channel.shared.acked == []


def test_a_restarted_server_is_taught_the_script_again(
    channel: Any, settings: Settings, admin: Any
) -> None:
    for _ in range(2):
        admin.script_flush()
        admin.lpush(key(settings, "txt2img"), "1")
        taken = Taker(channel, channel._create_client()).take([(1, ["txt2img"])], None)
        assert len(taken) == 1


def test_what_redis_gave_before_it_died_is_noted_by_the_next_connection(
    channel: Any, settings: Settings, admin: Any
) -> None:
    channel._caller = Redis.from_url(valkey_url(free_port()), retry=None)  # nobody is there
    with pytest.raises(RedisConnectionError):
        channel._take([], ("txt2img", a_message().encode()))
    channel._caller.close()
    with Connection(
        settings.broker_url.get_secret_value(), transport_options=transport_options(settings)
    ) as connection:
        connection.channel()._brpop_start()  # there is no consumer: it is given back at once
    assert admin.llen(key(settings, "txt2img")) == 1
    assert channel.shared.held == []


def test_the_channels_of_a_process_share_a_connection(channel: Any, settings: Settings) -> None:
    url = settings.broker_url.get_secret_value()
    with Connection(url, transport_options=transport_options(settings)) as another:
        assert another.channel().pool is channel.pool


# Lost connections


@pytest.fixture
def listening(channel: Any) -> Any:
    """The channel, which listens to remote control, after a command has come."""
    control = channel.keyprefix_fanout + "celery.pidbox"
    channel.subclient.subscribe(control)
    channel._in_listen = channel.subclient.connection
    until(lambda: channel.subclient.parse_response(block=False) is not None)
    channel._create_client().publish(control, "{}")
    return channel


def has_ended(connection: Any) -> bool:
    poll = select.poll()
    poll.register(connection._sock, select.POLLRDHUP)
    return bool(poll.poll(0))


def test_a_connection_of_remote_control_that_ends_after_a_command_is_replaced(
    listening: Any, admin: Any
) -> None:
    admin.client_kill_filter(_type="pubsub")
    until(lambda: has_ended(listening._in_listen))
    listening._receive()
    assert listening._in_listen is None


def test_so_is_one_to_which_nothing_can_be_sent(listening: Any) -> None:
    listening._in_listen._sock.shutdown(socket.SHUT_RDWR)
    listening._in_listen.next_health_check = 1.0  # long ago
    listening.active_fanout_queues = {"a.celery.pidbox"}
    listening.check_connections()
    assert listening._in_listen is None


def test_so_is_one_whose_answer_nobody_reads(
    listening: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The poller does not know a socket that the client has opened anew."""
    listening._in_listen.next_health_check = 1.0
    listening.active_fanout_queues = {"a.celery.pidbox"}
    listening.check_connections()
    late_s = time.monotonic() + 3 * listening.patience_s
    monkeypatch.setattr("worker.celery.polled.time.monotonic", lambda: late_s)
    listening.check_connections()
    assert listening._in_listen is None


def test_a_brpop_that_cannot_be_sent_is_sent_over_another_connection(channel: Any) -> None:
    channel._active_queues = ["txt2img"]
    channel._update_queue_cycle()
    channel.client.connection = channel.client.connection_pool.get_connection()
    channel.client.connection._sock.shutdown(socket.SHUT_RDWR)
    channel._brpop_start()
    assert not channel._in_poll
    assert channel.client.connection._sock is None


# Giving back, and acknowledging


def test_an_acknowledgement_is_not_lost_when_redis_does_not_answer(
    channel: Any, settings: Settings, admin: Any
) -> None:
    admin.hset(key(settings, "unacked"), "tag", "message")
    channel._caller = Redis.from_url(valkey_url(free_port()), retry=None)  # nobody is there
    channel.qos.ack("tag")
    assert admin.hlen(key(settings, "unacked")) == 1
    channel._caller.close()
    channel._caller = None
    channel.qos.flush()
    assert admin.hlen(key(settings, "unacked")) == 0


def test_a_message_in_hand_is_given_out_again_at_the_head_of_its_queue(
    channel: Any, settings: Settings, admin: Any
) -> None:
    source = inspect.getsource(QoS.restore_by_tag)
    for part in (
        "pipe.hget(self.unacked_key, tag)",
        "_remove_from_indices(tag, pipe)",
        "_do_restore_message(M, EX, RK, pipe, leftmost)",
    ):
        assert part in source
    admin.rpush(key(settings, "txt2img"), "before", a_message())
    [taken] = Taker(channel, channel._create_client()).take([(1, ["txt2img"])], None)
    channel.qos.restore_by_tag(taken.tag)
    channel.qos.restore_by_tag(taken.tag)  # as when two sweep at once
    assert admin.exists(key(settings, "unacked"), key(settings, "unacked_index")) == 0
    found = admin.lrange(key(settings, "txt2img"), 0, -1)
    assert found[0] == "before"
    assert json.loads(found[1])["headers"]["redelivered"] is True


@pytest.mark.parametrize("garbage", ["no JSON", "[1]", '{"headers": {}}', '[{},"",""],[{}'])
def test_garbage_among_the_messages_in_hand_is_set_aside(
    channel: Any, settings: Settings, admin: Any, aside: SetAside, garbage: str
) -> None:
    admin.lpush(key(settings, "txt2img"), garbage)
    [taken] = Taker(channel, channel._create_client()).take([(1, ["txt2img"])], None)
    channel.qos.restore_by_tag(taken.tag)
    [(_, raw, error)] = aside
    assert garbage.encode() in raw
    assert isinstance(error, InvalidMessage)
    assert admin.exists(key(settings, "unacked"), key(settings, "unacked_index")) == 0


# What a message may say


def test_limits_expiry_and_the_queue_are_not_for_a_sender_to_set() -> None:
    message = json.loads(a_message())
    headers, properties = message["headers"], message["properties"]
    headers |= {"timelimit": [9_999, 9_999], "expires": "2020-01-01T00:00:00+00:00"}
    properties["delivery_info"] = {"exchange": "theirs", "routing_key": "theirs.bulk"}
    take_over(message, "txt2img", "a-tag")
    take_over(message, "txt2img", "a-tag")  # as when a message is delivered again
    assert headers["timelimit"] == [None, None]
    assert (headers["expires"], headers[EXPIRES_HEADER]) == (None, "2020-01-01T00:00:00+00:00")
    assert properties["delivery_tag"] == "a-tag"
    assert properties["delivery_info"] == {
        "exchange": "",
        "routing_key": "txt2img",
        "redelivered": False,
    }


def test_a_message_is_not_nested_too_deep() -> None:
    value: Any = "leaf"
    for _ in range(MAX_DEPTH - 1):
        value = [{"a": 1}, value]
    check_depth(value)
    with pytest.raises(InvalidMessage, match="50 levels"):
        check_depth({"more": value})
