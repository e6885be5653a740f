"""kombu, inside, as `worker/lease.py`, `transport.py` and `recovery.py` take it to be.

When one of these fails, the three must be read beside kombu's new Redis transport.
"""

import inspect

from kombu.transport import TRANSPORT_ALIASES, get_transport_cls
from kombu.transport.redis import Channel, QoS, Transport

from worker.recovery import PRIORITIES, UNACKED
from worker.transport import CheckedChannel, install


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
    assert set(vars(CheckedChannel)) & set(vars(Channel)) <= {
        "__module__", "__doc__", "__annotations__", "__firstlineno__", "__static_attributes__",
        "_brpop_read",
    }  # fmt: skip


def test_messages_in_hand_are_where_the_recovery_looks() -> None:
    assert Channel.unacked_key == UNACKED
    lists = {"" if step == 0 else f"{Channel.sep}{step}" for step in Channel.priority_steps}
    assert lists == set(PRIORITIES)
    assert "lpush" in inspect.getsource(Channel._put)
    assert "dumps([message._raw, EX, RK])" in inspect.getsource(QoS.append)


def test_a_redis_url_leads_to_the_checked_transport() -> None:
    before = dict(TRANSPORT_ALIASES)
    try:
        install((), 1, (), lambda queue, raw, error: None)
        for scheme in ("redis", "rediss"):
            found = get_transport_cls(scheme)
            assert issubclass(found, Transport)
            assert issubclass(found.Channel, CheckedChannel)
    finally:
        TRANSPORT_ALIASES.update(before)
