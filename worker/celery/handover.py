"""What passes from one thread to another, and what wakes the other."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")
ONE = (1).to_bytes(8, "little")  # as an eventfd wants it; a pipe takes any bytes
READ = 4_096


class Bell:
    """Wakes a thread that polls file descriptors: an eventfd, or a pipe where there is none."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self.fd = self._hammer = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:  # macOS
            self.fd, self._hammer = os.pipe()
            os.set_blocking(self.fd, False)
            os.set_blocking(self._hammer, False)

    def ring(self) -> None:
        """Make `fd` readable. Safe from any thread, and often in a row."""
        with suppress(BlockingIOError):  # a pipe is full of rings that nobody has heard yet
            os.write(self._hammer, ONE)

    def hush(self) -> None:
        """Make it unreadable until it is rung again."""
        with suppress(BlockingIOError):
            while len(os.read(self.fd, READ)) == READ:
                pass

    def close(self) -> None:
        for fd in {self.fd, self._hammer}:
            os.close(fd)


class Handover(Generic[T]):
    """Things that one thread puts in and another takes out, which is woken once for many."""

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
        """All that is there, also what comes meanwhile; whoever puts in more wakes again."""
        self._is_woken = False
        while self._things:
            yield self._things.popleft()
