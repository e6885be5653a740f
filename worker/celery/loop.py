"""The event loop that jobs run on, in a thread of its own beside Celery's."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from threading import Thread
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")
TURN_S = 1.0

log = logging.getLogger(__name__)


class LoopThread(Thread):
    """A thread that runs an asyncio loop until `stop`, whatever is raised in it."""

    def __init__(self) -> None:
        super().__init__(name="jobs", daemon=True)
        self.loop = uvloop.new_event_loop()
        self.turned_at = time.monotonic()
        self._is_over = False
        self._closers: list[Callable[[], Awaitable[None]]] = []

    def run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(self._note_turn)
        while not self._is_over:
            try:
                self.loop.run_forever()
            except BaseException:  # a coroutine raised SystemExit, say; the others go on
                log.exception("a coroutine tried to end the process")
        self.loop.close()

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function on the loop. Thread-safe; the loop must not have stopped."""
        self.loop.call_soon_threadsafe(function, *args)

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def at_end(self, close: Callable[[], Awaitable[None]]) -> None:
        """Register a coroutine function to await when the loop stops, the last one first."""
        self._closers.append(close)

    def stop(self, timeout_s: float) -> None:
        """Cancel the tasks, await what `at_end` registered, and end the thread."""
        if not self.is_alive():
            return
        closed = self.begin(self._close())
        closed.add_done_callback(lambda _: self.call(self._end))
        self.join(timeout_s)

    def _note_turn(self) -> None:
        self.turned_at = time.monotonic()
        self.loop.call_later(TURN_S, self._note_turn)

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for close in reversed(self._closers):
            try:
                await close()
            except Exception:  # the others are to be closed too
                log.exception("a resource could not be closed")

    def _end(self) -> None:
        self._is_over = True
        self.loop.stop()
