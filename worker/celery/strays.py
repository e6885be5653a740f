"""Messages that a worker has taken and then lost.

Celery passes a message through many functions before the pool has it. An exception in some of them
is only logged, as in a timer, or not reported at all. Then the message would be leased for ever,
and its job never start.
"""

import logging
from typing import Any

from kombu.utils.json import dumps

from crossmodal.errors import InvalidMessage
from worker.celery.pool import CoroutinePool
from worker.celery.take import Taken

log = logging.getLogger(__name__)


class Strays:
    """A finder of messages that are not acknowledged, not in the pool, and not due later."""

    def __init__(self, pool: CoroutinePool) -> None:
        self._pool = pool
        self._seen: set[str] = set()
        self._given_out: set[str] = set()  # ids of lost jobs that were redelivered once

    def end(self, channel: Any, timer: Any) -> None:
        """Handle strays that the last call found, too: one found once may be on its way."""
        found = _unacknowledged(channel.qos) - self._pool.tags
        found = found and found - _timed(timer)
        for tag in found & self._seen:
            self._end(channel, tag)
        self._seen = found

    def _end(self, channel: Any, tag: str) -> None:
        """Redeliver a lost message; set it aside the second time."""
        message = channel.qos.get(tag)
        queue, job = message.delivery_info["routing_key"], message.headers["id"]
        log.error("a message from %s was lost inside the worker: job %s", queue, job)
        if job in self._given_out:
            taken = Taken(queue, dumps(message._raw).encode(), tag)
            channel.set_aside(taken, InvalidMessage("Celery lost it twice"))
            self._given_out.discard(job)
        else:  # `redelivered` proves no loss: a store outage sets it, too
            self._given_out.add(job)
            channel.qos.reject(tag, requeue=True)


def _unacknowledged(qos: Any) -> set[str]:
    found: set[str] = set(qos._delivered) - qos._dirty
    return found


def _timed(timer: Any) -> set[str]:
    """Return the tags of messages that wait for their ETA."""
    first = (entry.args[0] for _, _, entry in timer._queue if entry.args)
    return {one.message.delivery_tag for one in first if hasattr(one, "message")}
