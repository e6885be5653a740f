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
        self._given_out: set[str] = set()  # ids of what was lost, and has not come here again

    def end(self, channel: Any, timer: Any) -> None:
        """End those that the last call has seen, too: what is on its way is nobody's."""
        found = _unacknowledged(channel.qos) - self._pool.tags
        found = found and found - _timed(timer)
        for tag in found & self._seen:
            self._end(channel, tag)
        self._seen = found

    def _end(self, channel: Any, tag: str) -> None:
        """Give a message out again; set it aside the second time."""
        message = channel.qos.get(tag)
        queue, job = message.delivery_info["routing_key"], message.headers["id"]
        log.error("a message from %s was lost inside the worker: job %s", queue, job)
        if job in self._given_out:
            taken = Taken(queue, dumps(message._raw).encode(), tag)
            channel.set_aside(taken, InvalidMessage("Celery lost it twice"))
            self._given_out.discard(job)
        else:  # that it was given out before says nothing: as when the store was away
            self._given_out.add(job)
            channel.qos.reject(tag, requeue=True)


def _unacknowledged(qos: Any) -> set[str]:
    found: set[str] = set(qos._delivered) - qos._dirty
    return found


def _timed(timer: Any) -> set[str]:
    """The tags of what waits for its time."""
    first = (entry.args[0] for _, _, entry in timer._queue if entry.args)
    return {one.message.delivery_tag for one in first if hasattr(one, "message")}
