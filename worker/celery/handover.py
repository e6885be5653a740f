"""A handover of objects from one thread to another, and the bell that wakes the other."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")
ONE = (1).to_bytes(8, "little")  # the 8 bytes that an eventfd takes; a pipe takes any
READ = 4_096


class Bell:
    """A wake-up for a thread that polls file descriptors: an eventfd, or a pipe without one."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self.fd = self._hammer = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:  # macOS
            self.fd, self._hammer = os.pipe()
            os.set_blocking(self.fd, False)
            os.set_blocking(self._hammer, False)

    def ring(self) -> None:
        """Make `fd` readable. Thread-safe; several rings count as one."""
        with suppress(BlockingIOError):  # a full pipe is readable already
            os.write(self._hammer, ONE)

    def hush(self) -> None:
        """Make `fd` unreadable until the next ring."""
        with suppress(BlockingIOError):
            while len(os.read(self.fd, READ)) == READ:
                pass

    def close(self) -> None:
        for fd in {self.fd, self._hammer}:
            os.close(fd)


class Handover(Generic[T]):
    """A queue from one thread to another, with one wake-up for many items."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._things: deque[T] = deque()
        self._is_woken = False

    def put(self, thing: T) -> None:
        self._things.append(thing)
        if not self._is_woken:
            self._is_woken = True
            self._wake()

    def take(self) -> Iterator[T]:
        """Yield all items, also those put in meanwhile; a later `put` wakes the reader again."""
        self._is_woken = False
        while self._things:
            yield self._things.popleft()
