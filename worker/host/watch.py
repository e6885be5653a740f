"""Watches a batch that runs: reports its steps and previews, and cancels it.

A model may call `step` as often as it likes, at the cost of reading the clock. Only now and then is
a step reported, or a cancel checked. Previews are made only for requests that have an audience.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from crossmodal.models.contract import Canceled, Preview
from worker.host.previews import jpegs_of

log = logging.getLogger(__name__)

TELL_S = 0.2  # between two steps that are reported
CHECK_S = 0.05  # between two checks for a cancel
PREVIEW_S = 1.0  # between two previews
CANCEL = "cancel"  # sent to a process in place of its next batch: end this one

Previews = Mapping[int, bytes]  # JPEG files, by the places of their requests in a batch
Watched = frozenset[int]  # the places of requests that have an audience
NOBODY: Watched = frozenset()
NONE: Previews = {}


class OnStep(Protocol):
    """A callback for a call's steps, some of them with a preview, a JPEG file."""

    def __call__(self, done: int, of: int, preview: bytes | None = None, /) -> object: ...


class OnBatchStep(Protocol):
    """A callback for a batch's steps, some of them with previews."""

    def __call__(self, done: int, of: int, previews: Previews = NONE, /) -> object: ...


def no_step(done: int, of: int, preview: object = None, /) -> None:
    """Ignore a step."""


class Audience:
    """Whether previews are wanted of one call's pictures while they are drawn."""

    def __init__(self) -> None:
        self.is_there = False
        self._tell: Callable[[bool], object] | None = None

    def turn(self, is_there: bool) -> None:
        """Set whether previews are wanted."""
        if is_there != self.is_there:
            self.is_there = is_there
            if self._tell is not None:
                self._tell(is_there)

    def told_to(self, tell: Callable[[bool], object] | None) -> None:
        """Set the callback for changes; it is called at once if previews are wanted already."""
        self._tell = tell
        if tell is not None and self.is_there:
            tell(True)


class Watch:
    """The host's side of a batch. Thread-safe."""

    def __init__(self, on_step: OnBatchStep = no_step) -> None:
        self.on_step = on_step
        self._lock = threading.Lock()
        self._is_canceled = False
        self._watched = NOBODY
        self._tell: Callable[[str | Watched], None] | None = None

    def cancel(self) -> None:
        """Make the batch end at its next step."""
        with self._lock:
            if not self._is_canceled and self._tell is not None:
                self._tell(CANCEL)
            self._is_canceled = True

    def is_canceled(self) -> bool:
        return self._is_canceled

    def show(self, watched: Watched) -> None:
        """Request previews of these requests only, from the next steps on."""
        with self._lock:
            if watched != self._watched and self._tell is not None:
                self._tell(watched)
            self._watched = watched

    def watched(self) -> Watched:
        return self._watched

    def joined(self, tell: Callable[[str | Watched], None] | None) -> None:
        """Set the callback to the process that runs the batch; None when it has ended."""
        with self._lock:
            self._tell = tell
            if tell is not None and self._is_canceled:
                tell(CANCEL)
            elif tell is not None and self._watched:
                tell(self._watched)


class Stepper:
    """The batch's side: the link that a model's steps go to."""

    def __init__(
        self,
        is_canceled: Callable[[], bool],
        tell: OnBatchStep,
        pause: Callable[[], None],
        watched: Callable[[], Watched] = lambda: NOBODY,
    ) -> None:
        self._is_canceled = is_canceled
        self._tell = tell
        self._pause = pause
        self._watched = watched
        self._told_at = self._checked_at = time.monotonic()
        self._shown_at = float("-inf")

    def step(self, done: int, of: int, preview: Preview | None = None) -> None:
        """Handle a step. Raises `Canceled` if the batch is not wanted any more.

        The numbers may be NumPy's or torch's; what is no number raises the model's own error.
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
            if previews := self._previews(preview, now):
                self._tell(done, of, previews)
            else:
                self._tell(done, of)

    def _previews(self, preview: Preview | None, now: float) -> Previews:
        """Return the previews of a step; a model that fails to make them draws on nevertheless."""
        watched = self._watched()
        if preview is None or not watched or now - self._shown_at < PREVIEW_S:
            return NONE
        self._shown_at = now
        try:
            return jpegs_of(preview(), watched)
        except Exception as e:  # noqa: BLE001 - a model may raise anything
            log.debug("a preview failed: %r", e)
            return NONE
