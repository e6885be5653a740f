"""Limits on the open requests of each API key, event streams among them."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from weakref import WeakValueDictionary

from crossmodal.errors import RateLimited

MAX_OPEN = 1_000  # max requests of a key when it opens a stream; of all: `MAX_CONNECTIONS`
BESIDE = 250  # further requests that a key may have open beside MAX_OPEN
MAX_CONNECTIONS = 5_000  # per server
RETRY_S = 5.0


class Connections:
    """The open requests of each key, in one event loop. Requests without a key do not count."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def turn(self, owner: str) -> AbstractAsyncContextManager[None]:
        """Return the key's lock, which runs its costly requests one at a time."""
        return self._turns.setdefault(owner, asyncio.Lock()) if owner else nullcontext()

    def has_room(self, owner: str) -> bool:
        """Whether the key's current request, already counted, may become a stream."""
        return not owner or self._open[owner] <= MAX_OPEN

    def check_room(self, owner: str) -> None:
        """Raise `RateLimited` where `has_room` is false."""
        if not self.has_room(owner):
            raise RateLimited(
                f"this API key has its max of {MAX_OPEN} open requests, event streams included: "
                "close one, or follow all jobs with /v1/events",
                RETRY_S,
            )

    @contextmanager
    def one(self, owner: str) -> Iterator[None]:
        """Count one open request. Raises `RateLimited`."""
        if owner and self._open[owner] >= MAX_OPEN + BESIDE:
            raise RateLimited(
                f"this API key has its max of {MAX_OPEN + BESIDE} open requests: wait for their "
                "answers, and send bodies faster",
                RETRY_S,
            )
        self._open[owner] += 1
        try:
            yield
        finally:
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]
