"""Messages that a worker has taken, and that nobody in it has any more.

Celery passes a message through many hands before the pool has it. An exception in some of them is
only logged, as that of a timer, and another may be told to nobody. Then the message would be
leased for ever, and its job never start.
"""

from typing import Any

from worker.celery.pool import CoroutinePool


class Strays:
    """Finds what is not acknowledged, neither in the pool nor to be there at some time."""

    def __init__(self, pool: CoroutinePool) -> None:
        self._pool = pool
        self._seen: set[str] = set()

    def end(self, channel: Any, timer: Any) -> None:
        """Have the channel end those that the last call has seen, too: on the way is nobody's."""
        found = _unacknowledged(channel.qos) - self._pool.tags
        found = found and found - _timed(timer)
        for tag in found & self._seen:
            channel.end_stray(tag)
        self._seen = found


def _unacknowledged(qos: Any) -> set[str]:
    found: set[str] = set(qos._delivered) - qos._dirty
    return found


def _timed(timer: Any) -> set[str]:
    """The tags of what waits for its time."""
    first = (entry.args[0] for _, _, entry in timer._queue if entry.args)
    return {one.message.delivery_tag for one in first if hasattr(one, "message")}
