"""Whose turn it is on a device that several hosts share.

A lock on a file, which the system gives back when a host dies. Models that may run beside others
share it; any other has it for itself. Who waits holds a second lock meanwhile: so the one whose
turn it is sees that somebody waits, and those who wait come in order.
"""

import asyncio
import fcntl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

HOLD_S = 2.0  # how long batches of one host follow each other while another host waits


class Always:
    """Of a host that has its device for itself."""

    @property
    def is_mine(self) -> bool:
        return True

    @property
    def is_up(self) -> bool:
        return False

    def ask(self, then: Callable[[], None]) -> None: ...

    def note_used(self) -> None: ...

    def give_back(self) -> None: ...

    def close(self) -> None: ...


class Turn:
    """The turn of one host, for one event loop. With `shares`, others that do so run beside it."""

    def __init__(self, file: Path, *, shares: bool) -> None:
        self._lock = file.open("ab")
        self._next = file.with_suffix(".next").open("ab")
        self._how = fcntl.LOCK_SH if shares else fcntl.LOCK_EX
        self._is_asking = False
        self._used_since: float | None = None
        self.is_mine = False

    @property
    def is_up(self) -> bool:
        """Whether it is time to give it back: it was used for a while, and somebody waits."""
        since = self._used_since
        return since is not None and time.monotonic() - since > HOLD_S and self.others_wait

    @property
    def others_wait(self) -> bool:
        """Whether another host waits: then it holds the second lock."""
        try:
            fcntl.flock(self._next, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._next, fcntl.LOCK_UN)
        return False

    def ask(self, then: Callable[[], None]) -> None:
        """Wait for the turn in a thread, and have the loop call `then` once it is there."""
        if self._is_asking or self.is_mine:
            return
        self._is_asking = True
        loop = asyncio.get_running_loop()

        def wait() -> None:
            with suppress(ValueError, RuntimeError):  # the files, or the loop, are closed by now
                fcntl.flock(self._next, fcntl.LOCK_EX)
                fcntl.flock(self._lock, self._how)
                fcntl.flock(self._next, fcntl.LOCK_UN)
                loop.call_soon_threadsafe(self._begin, then)

        threading.Thread(target=wait, name="turn", daemon=True).start()

    def note_used(self) -> None:
        """A batch starts. From the first one on counts for how long others have waited: a turn in
        which nothing was run is never up."""
        self._used_since = self._used_since or time.monotonic()

    def give_back(self) -> None:
        if self.is_mine:
            self.is_mine, self._used_since = False, None
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give it back for good."""
        self._lock.close()
        self._next.close()

    def _begin(self, then: Callable[[], None]) -> None:
        self._is_asking, self.is_mine = False, True
        then()
