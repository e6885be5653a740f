"""What each key holds open here: requests that are not answered, streams among them."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from weakref import WeakValueDictionary

from crossmodal.errors import RateLimited

MAX_OPEN = 1_000  # of one key, while one more stream is begun; of all, `MAX_CONNECTIONS`
BESIDE = 250  # requests that a key may have open beside as many streams
MAX_CONNECTIONS = 5_000  # of a server
RETRY_S = 5.0


class Connections:
    """Counts them, in one event loop. Who needs no key is not counted."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def turn(self, owner: str) -> AbstractAsyncContextManager[None]:
        """Hold up what else the key does in turns, so that it costs others no more than one."""
        return self._turns.setdefault(owner, asyncio.Lock()) if owner else nullcontext()

    def has_room(self, owner: str) -> bool:
        """Whether the key's request, which is counted, may last."""
        return not owner or self._open[owner] <= MAX_OPEN

    def check_room(self, owner: str) -> None:
        """Raise `RateLimited` where the key's request, which is counted, may not last."""
        if not self.has_room(owner):
            raise RateLimited(
                f"{MAX_OPEN} requests of this API key are open, event streams among them, which "
                "is as many as may be: close one, or follow all jobs with /v1/events",
                RETRY_S,
            )

    @contextmanager
    def one(self, owner: str) -> Iterator[None]:
        """Hold one open. Raises `RateLimited`."""
        if owner and self._open[owner] >= MAX_OPEN + BESIDE:
            raise RateLimited(
                f"{MAX_OPEN + BESIDE} requests of this API key are open, which is as many as may "
                "be: wait for their answers, and send bodies faster",
                RETRY_S,
            )
        self._open[owner] += 1
        try:
            yield
        finally:
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]
