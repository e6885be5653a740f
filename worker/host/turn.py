"""The turns of several hosts that share a device.

A turn is a lock on a file, which the system releases when a host dies. Models that may run beside
others share it; any other has it exclusively. A host that waits holds a second lock: so the host
whose turn it is sees that another waits, and those that wait come in order.
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
    """The turn of a host that has its device for itself."""

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
    """The turn of one host, for one event loop. With `shares`, others that share run beside it."""

    def __init__(self, file: Path, *, shares: bool) -> None:
        self._lock = file.open("ab")
        self._next = file.with_suffix(".next").open("ab")
        self._how = fcntl.LOCK_SH if shares else fcntl.LOCK_EX
        self._is_asking = False
        self._used_since: float | None = None
        self.is_mine = False

    @property
    def is_up(self) -> bool:
        """Whether the turn is over: it was used for a while, and another host waits."""
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
        """Wait for the turn in a thread; the loop calls `then` once it is there."""
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
        """Note that a batch starts; the turn's time counts from the first one.

        So a turn in which nothing ran is never up.
        """
        self._used_since = self._used_since or time.monotonic()

    def give_back(self) -> None:
        if self.is_mine:
            self.is_mine, self._used_since = False, None
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the turn back for good."""
        self._lock.close()
        self._next.close()

    def _begin(self, then: Callable[[], None]) -> None:
        self._is_asking, self.is_mine = False, True
        then()
