"""What is broadcast comes over channels of Redis: its queues are names, and no lists."""

from typing import Any

from kombu.transport import redis as kombu_redis

PIDBOX = ".celery.pidbox"  # how queues of workers end for remote control
REPLIES = ".reply.celery.pidbox"  # how those end that its answers come in, which are lists


class BroadcastChannel(kombu_redis.Channel):
    """Asks for no list of such a queue: it is empty, and Redis users have no right to it.

    A right to these names would be one to those of every other deployment on the server.
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
