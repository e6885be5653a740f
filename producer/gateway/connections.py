"""What each key holds open here: event streams, and calls that wait for a job's end."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from crossmodal.errors import RateLimited

MOST_OPEN = 1_000  # of one key; of all of them, `cli.MOST_CONNECTIONS`
RETRY_S = 5.0


class Connections:
    """Counts them, in one event loop. Who needs no key is not counted."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def has_room(self, owner: str) -> bool:
        """Whether the key may hold one more open."""
        return not owner or self._open[owner] < MOST_OPEN

    @contextmanager
    def one(self, owner: str) -> Iterator[None]:
        """Hold one open. Raises `RateLimited`."""
        if not self.has_room(owner):
            raise RateLimited(
                f"{MOST_OPEN} event streams of this API key are open, which is as many as may be: "
                "close one, or follow all jobs with /v1/events",
                RETRY_S,
            )
        self._open[owner] += 1
        try:
            yield
        finally:
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]
