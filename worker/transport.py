"""kombu's Redis transport, letting through to Celery only what Celery can take.

One entry of a queue's list that is no message ends a Celery worker, and the next one that
takes it. With `worker/lease.py` this is where kombu's inside is known; a test fails when
kombu changes it.
"""

import json
import time
import uuid
from collections.abc import Callable, Container
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis

from crossmodal.errors import CrossmodalError, InvalidMessage
from crossmodal.jobs.message import parse_message

SetAside = Callable[[str, bytes, CrossmodalError], None]


class CheckedChannel(kombu_redis.Channel):
    """Reads like its parent, and checks; its class attributes are set by `install`."""

    queues: Container[str]
    max_bytes: int
    known_tasks: Container[str]
    set_aside: SetAside
    polled_at = 0.0  # when Redis last answered a BRPOP, by the monotonic clock

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
        if queue in self.queues:
            self._let_through(queue, reply[1])
        else:  # a reply to a remote control command
            self.connection._deliver(json.loads(reply[1]), queue)
        return True

    def _brpop_reply(self, options: dict[str, Any]) -> Any:
        try:
            return self.client.parse_response(self.client.connection, "BRPOP", **options)
        except self.connection_errors:
            self.client.connection.disconnect()  # the next poll connects anew
            raise

    def _let_through(self, queue: str, raw: bytes) -> None:
        try:
            message = parse_message(raw, self.max_bytes, self.known_tasks)
        except InvalidMessage as e:
            type(self).set_aside(queue, raw, e)
            return
        # Two copies of one message share a tag: the acknowledgement of one would be of both.
        message["properties"]["delivery_tag"] = str(uuid.uuid4())
        self.connection._deliver(message, queue)


def install(
    queues: Container[str], max_bytes: int, known_tasks: Container[str], set_aside: SetAside
) -> None:
    """Have this process check what it takes from `queues`; what is no message is `set_aside`."""
    limits = {
        "queues": queues, "max_bytes": max_bytes, "known_tasks": known_tasks,
        "set_aside": staticmethod(set_aside),
    }  # fmt: skip
    channel = type("Channel", (CheckedChannel,), limits)
    transport = type("Transport", (kombu_redis.Transport,), {"Channel": channel})
    for scheme in ("redis", "rediss"):  # not `broker_transport`: then URLs are shown as classes
        TRANSPORT_ALIASES[scheme] = lambda: transport
