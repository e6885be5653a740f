"""How many messages a worker has in hand: interactive ones and bulk ones are counted apart.

So none of the former ever waits because the latter fill the worker.
"""

from collections.abc import Iterator

BULK = ".bulk"  # how the names of queues end that bulk messages lie in


class Lane:
    """The messages of one kind that are in hand, by their delivery tags."""

    def __init__(self, limit: int = 1) -> None:
        self.limit = limit
        self.tags: set[str] = set()

    @property
    def room(self) -> int:
        """How many more may be taken."""
        return max(0, self.limit - len(self.tags))


class Lanes:
    """Both lanes of a worker. The pool fills them, the transport takes what there is room for."""

    def __init__(self, interactive: int = 1, bulk: int = 1) -> None:
        self.interactive = Lane(interactive)
        self.bulk = Lane(bulk)

    def __iter__(self) -> Iterator[Lane]:
        """The one that is served first comes first."""
        return iter((self.interactive, self.bulk))

    def of(self, queue: str) -> Lane:
        """The lane of the messages of a queue."""
        return self.bulk if queue.endswith(BULK) else self.interactive

    @property
    def tags(self) -> set[str]:
        """The delivery tags of all that is in hand; safe to be asked from any thread."""
        return self.interactive.tags | self.bulk.tags
