"""Broadcast queues of Celery's remote control: Redis pub/sub channels, not lists."""

from typing import Any

from kombu.transport import redis as kombu_redis

PIDBOX = ".celery.pidbox"  # suffix of the workers' remote control queues
REPLIES = ".reply.celery.pidbox"  # suffix of its reply queues, which are lists


class BroadcastChannel(kombu_redis.Channel):
    """A channel that never reads the list of a broadcast queue.

    The list is always empty, and the Redis user has no right to it: such a right would cover the
    queues of every other deployment on the server.
    """

    def _size(self, queue: str) -> Any:
        return 0 if _is_broadcast(queue) else super()._size(queue)

    def _delete(
        self, queue: str, exchange: str, routing_key: str, pattern: str, *args: Any, **more: Any
    ) -> None:
        if not _is_broadcast(queue):
            super()._delete(queue, exchange, routing_key, pattern, *args, **more)
            return
        self.auto_delete_queues.discard(queue)
        with self.conn_or_acquire() as client:
            bound = self.sep.join([routing_key or "", pattern or "", queue])
            client.srem(self.keyprefix_queue % (exchange,), bound)


def _is_broadcast(queue: str) -> bool:
    return queue.endswith(PIDBOX) and not queue.endswith(REPLIES)
