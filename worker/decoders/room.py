"""A memory budget: a number of bytes that may be in use at once."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """A budget that lends its bytes in the order of the requests.

    A request for more than the budget waits until all of it is free, and then gets all of it.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def lent(self, size: int) -> AsyncIterator[None]:
        """Wait until `size` bytes are free, and hold them in the block."""
        size = min(size, self._size)
        await self._take(size)
        try:
            yield
        finally:
            self._give(size)

    async def _take(self, size: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        waiter = size, turn
        self._waiting.append(waiter)
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give(size)
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
                self._serve()  # later requests may be smaller
            raise

    def _give(self, size: int) -> None:
        self._free += size
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            is_gone = turn.done()  # canceled in this turn of the event loop
            if not is_gone and size > self._free:
                return
            self._waiting.popleft()
            if not is_gone:
                self._free -= size
                turn.set_result(None)
