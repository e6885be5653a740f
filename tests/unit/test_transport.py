"""kombu, inside, as `worker/lease.py`, `transport.py` and `recovery.py` take it to be.

When one of these fails, the three must be read beside kombu's new Redis transport.
"""

import inspect
import json
from typing import Any

from kombu import Connection
from kombu.transport import get_transport_cls
from kombu.transport.redis import Channel, MultiChannelPoller, QoS, SentinelChannel, Transport
from redis import Redis

from crossmodal.jobs.connection import connect
from crossmodal.jobs.message import message_of
from crossmodal.jobs.names import EXPIRES_HEADER, Task, celery_prefix
from crossmodal.jobs.params import Txt2ImgParams
from crossmodal.local.valkey import free_port, valkey_url
from crossmodal.settings import Settings, load_settings
from tests.celery_app import as_before
from worker.recovery import PRIORITIES, UNACKED
from worker.transport import BatchedAcks, CheckedChannel, install, take_over


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
    for part in ("parse_response", "rsplit(self.sep, 1)", "_queue_cycle.rotate(dest)",
                 "self.connection._deliver(loads(bytes_to_str(item)), dest)",
                 "self._in_poll = None", "raise Empty()"):  # fmt: skip
        assert part in source
    assert Channel.sep == "\x06\x16"
    private = {name for name in vars(CheckedChannel) if not name.startswith("__")}
    assert private & set(vars(Channel)) == {
        "_brpop_read", "_brpop_start", "_receive_one", "_restore", "QoS", "close",
        "conn_or_acquire",
    }  # fmt: skip
    assert "channel._brpop_start()" in inspect.getsource(MultiChannelPoller._register_BRPOP)


def test_messages_in_hand_are_noted_as_kombu_notes_them() -> None:
    append, ack = inspect.getsource(QoS.append), inspect.getsource(QoS.ack)
    for part in ("zadd(self.unacked_index_key", "hset(self.unacked_key, delivery_tag,",
                 "super().append(message, delivery_tag)"):  # fmt: skip
        assert part in append
    assert "_remove_from_indices(delivery_tag).execute()" in ack
    assert "super().ack(delivery_tag)" in ack
    removed = inspect.getsource(QoS._remove_from_indices)
    assert "zrem(self.unacked_index_key" in removed
    assert "hdel(self.unacked_key" in removed
    assert "yield self._create_client()" in inspect.getsource(Channel.conn_or_acquire)
    private = {name for name in vars(BatchedAcks) if not name.startswith("__")}
    assert private & set(vars(QoS)) == {"append", "ack", "pipe_or_acquire", "restore_by_tag"}


def test_an_acknowledgement_is_not_lost_when_redis_does_not_answer(
    settings: Settings, admin: Any
) -> None:
    transport = type("Transport", (Transport,), {"Channel": CheckedChannel})
    url = settings.broker_url.get_secret_value()
    with Connection(url, transport=transport) as connection, connect(settings) as redis:
        channel = connection.channel()
        channel.unacked_key = celery_prefix(settings.key_prefix) + "unacked"
        channel.unacked_index_key = celery_prefix(settings.key_prefix) + "unacked_index"
        redis.hset(channel.unacked_key, "tag", "message")
        channel._caller = Redis.from_url(valkey_url(free_port()), retry=None)  # nobody is there
        channel.qos.ack("tag")
        assert admin.hlen(channel.unacked_key) == 1
        channel._caller.close()
        channel._caller = None
        channel.qos.flush()
        assert admin.hlen(channel.unacked_key) == 0


def test_a_message_in_hand_is_given_out_again_at_the_head_of_its_queue(
    settings: Settings, admin: Any
) -> None:
    source = inspect.getsource(QoS.restore_by_tag)
    for part in ("pipe.hget(self.unacked_key, tag)", "_remove_from_indices(tag, pipe)",
                 "_do_restore_message(M, EX, RK, pipe, leftmost)"):  # fmt: skip
        assert part in source
    prefix = celery_prefix(settings.key_prefix)
    transport = type("Transport", (Transport,), {"Channel": CheckedChannel})
    options = {"global_keyprefix": prefix}
    url = settings.broker_url.get_secret_value()
    with Connection(url, transport=transport, transport_options=options) as connection:
        channel = connection.channel()
        message = json.loads(message_of(Task.TXT2IMG, "a-job", Txt2ImgParams(prompt="a circle")))
        admin.hset(prefix + "unacked", "tag", json.dumps([message, "", "txt2img"]))
        admin.zadd(prefix + "unacked_index", {"tag": 0})
        admin.rpush(prefix + "txt2img", "before")
        channel.qos.restore_by_tag("tag")
        channel.qos.restore_by_tag("tag")  # as when two sweep at once
        assert admin.exists(prefix + "unacked", prefix + "unacked_index") == 0
        found = admin.lrange(prefix + "txt2img", 0, -1)
        assert len(found) == 2
        assert json.loads(found[1])["headers"]["redelivered"] is True


def test_a_message_that_is_not_wanted_is_given_back_as_by_the_sweep() -> None:
    source = inspect.getsource(Channel._restore)
    for part in ("tag = message.delivery_tag", "pipe.hget(self.unacked_key, tag)",
                 "self._do_restore_message(M, EX, RK, pipe, leftmost)"):  # fmt: skip
        assert part in source


def test_messages_in_hand_are_where_the_recovery_looks() -> None:
    assert Channel.unacked_key == UNACKED
    lists = {"" if step == 0 else f"{Channel.sep}{step}" for step in Channel.priority_steps}
    assert lists == set(PRIORITIES)
    assert "lpush" in inspect.getsource(Channel._put)
    assert "dumps([message._raw, EX, RK])" in inspect.getsource(QoS.append)


def test_limits_and_expiry_are_not_for_a_sender_to_set() -> None:
    message = json.loads(message_of(Task.TXT2IMG, "job-1", Txt2ImgParams(prompt="a", seed=1)))
    headers, tag = message["headers"], message["properties"]["delivery_tag"]
    headers |= {"timelimit": [9_999, 9_999], "expires": "2020-01-01T00:00:00+00:00"}
    take_over(message)
    take_over(message)  # as when a message is delivered again
    assert headers["timelimit"] == [None, None]
    assert (headers["expires"], headers[EXPIRES_HEADER]) == (None, "2020-01-01T00:00:00+00:00")
    assert message["properties"]["delivery_tag"] != tag


def test_a_redis_url_leads_to_the_checked_transport() -> None:
    with as_before():
        for scheme, parent in {
            "redis": Channel,
            "rediss": Channel,
            "sentinel": SentinelChannel,
        }.items():
            get_transport_cls(scheme)  # kombu remembers what it has found
            install(load_settings(broker_url=f"{scheme}://h"), lambda queue, raw, error: None)
            found = get_transport_cls(scheme)
            assert issubclass(found, Transport)
            assert issubclass(found.Channel, CheckedChannel)
            assert issubclass(found.Channel, parent)
