"""How a batch that runs is watched: its steps are told, and it can be ended.

A batch calls `step` as often as it likes. What that costs is a look at the clock; only now and
then is a step told, or looked whether anybody still waits.
"""

import threading
import time
from collections.abc import Callable

from crossmodal.models.contract import Canceled

TELL_S = 0.2  # between two steps that are told
CHECK_S = 0.05  # between two looks whether the batch is wanted

OnStep = Callable[[int, int], object]


def no_step(done: int, of: int) -> None:
    """Of a batch whose steps nobody follows."""


class Watch:
    """The host's side of a batch: it may be used from any thread."""

    def __init__(self, on_step: OnStep = no_step) -> None:
        self.on_step = on_step
        self._lock = threading.Lock()
        self._is_canceled = False
        self._tell: Callable[[], None] | None = None

    def cancel(self) -> None:
        """Have the batch end at its next step."""
        with self._lock:
            if not self._is_canceled and self._tell is not None:
                self._tell()
            self._is_canceled = True

    def is_canceled(self) -> bool:
        return self._is_canceled

    def joined(self, tell: Callable[[], None] | None) -> None:
        """Say how a process that runs the batch is told of its end, for as long as it does."""
        with self._lock:
            self._tell = tell
            if tell is not None and self._is_canceled:
                tell()


class Stepper:
    """The batch's side: what a model's steps go to."""

    def __init__(
        self, is_canceled: Callable[[], bool], tell: OnStep, pause: Callable[[], None]
    ) -> None:
        self._is_canceled = is_canceled
        self._tell = tell
        self._pause = pause
        self._told_at = self._checked_at = time.monotonic()

    def step(self, done: int, of: int) -> None:
        """Take note of a step. Raises `Canceled` where nobody wants the batch.

        The numbers may be of NumPy or torch; what is no number is the model's own error.
        """
        done, of = int(done), int(of)
        self._pause()
        now = time.monotonic()
        if now - self._checked_at >= CHECK_S:
            self._checked_at = now
            if self._is_canceled():
                raise Canceled
        if now - self._told_at >= TELL_S:
            self._told_at = now
            self._tell(done, of)
