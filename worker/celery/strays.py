"""Messages that a worker has taken, and that nobody in it has any more.

Celery passes a message through many hands before the pool has it. An exception in some of them is
only logged, as that of a timer, and another may be told to nobody. Then the message would be
leased for ever, and its job never start.
"""

import logging
from typing import Any

from kombu.utils.json import dumps

from crossmodal.errors import InvalidMessage
from worker.celery.pool import CoroutinePool
from worker.celery.take import Taken

log = logging.getLogger(__name__)


class Strays:
    """Finds what is not acknowledged, neither in the pool nor to be there at some time."""

    def __init__(self, pool: CoroutinePool) -> None:
        self._pool = pool
        self._seen: set[str] = set()

    def end(self, channel: Any, timer: Any) -> None:
        """End those that the last call has seen, too: what is on its way is nobody's."""
        found = _unacknowledged(channel.qos) - self._pool.tags
        found = found and found - _timed(timer)
        for tag in found & self._seen:
            _end(channel, tag)
        self._seen = found


def _unacknowledged(qos: Any) -> set[str]:
    found: set[str] = set(qos._delivered) - qos._dirty
    return found


def _timed(timer: Any) -> set[str]:
    """The tags of what waits for its time."""
    first = (entry.args[0] for _, _, entry in timer._queue if entry.args)
    return {one.message.delivery_tag for one in first if hasattr(one, "message")}


def _end(channel: Any, tag: str) -> None:
    """Give a message out again; set it aside the second time."""
    message = channel.qos.get(tag)
    queue = message.delivery_info["routing_key"]
    log.error("nobody has a message from %s any more: %s", queue, message.headers["id"])
    if message.delivery_info.get("redelivered"):
        taken = Taken(queue, dumps(message._raw).encode(), tag)
        channel.set_aside(taken, InvalidMessage("Celery has lost it twice"))
    else:
        channel.qos.reject(tag, requeue=True)
