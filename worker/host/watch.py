"""How a batch that runs is watched: its steps are told, and it can be ended.

A batch calls `step` as often as it likes. What that costs is a look at the clock; only now and
then is a step told, or looked whether anybody still waits. Of what is drawn, previews are made
for those requests alone that somebody looks at.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from crossmodal.models.contract import Canceled, Preview
from worker.host.previews import jpegs_of

log = logging.getLogger(__name__)

TELL_S = 0.2  # between two steps that are told
CHECK_S = 0.05  # between two looks whether the batch is wanted
PREVIEW_S = 1.0  # between two previews
CANCEL = "cancel"  # what a process is told instead of its next batch: end this one

Previews = Mapping[int, bytes]  # JPEG files, by the places of their requests in a batch
Watched = frozenset[int]  # the places of requests that somebody looks at
NOBODY: Watched = frozenset()
NONE: Previews = {}


class OnStep(Protocol):
    """Who is told of a call's steps, some of them with a preview, a JPEG file."""

    def __call__(self, done: int, of: int, preview: bytes | None = None, /) -> object: ...


class OnBatchStep(Protocol):
    """Who is told of a batch's steps, some of them with previews."""

    def __call__(self, done: int, of: int, previews: Previews = NONE, /) -> object: ...


def no_step(done: int, of: int, preview: object = None, /) -> None:
    """Of a batch whose steps nobody follows."""


class Audience:
    """Whether somebody looks at one call's pictures while they are drawn."""

    def __init__(self) -> None:
        self.is_there = False
        self._tell: Callable[[bool], object] | None = None

    def turn(self, is_there: bool) -> None:
        """Note that somebody has come, or nobody is there any more."""
        if is_there != self.is_there:
            self.is_there = is_there
            if self._tell is not None:
                self._tell(is_there)

    def told_to(self, tell: Callable[[bool], object] | None) -> None:
        """Say who is to know of it, from now on; of one who is there already at once."""
        self._tell = tell
        if tell is not None and self.is_there:
            tell(True)


class Watch:
    """The host's side of a batch: it may be used from any thread."""

    def __init__(self, on_step: OnBatchStep = no_step) -> None:
        self.on_step = on_step
        self._lock = threading.Lock()
        self._is_canceled = False
        self._watched = NOBODY
        self._tell: Callable[[str | Watched], None] | None = None

    def cancel(self) -> None:
        """Have the batch end at its next step."""
        with self._lock:
            if not self._is_canceled and self._tell is not None:
                self._tell(CANCEL)
            self._is_canceled = True

    def is_canceled(self) -> bool:
        return self._is_canceled

    def show(self, watched: Watched) -> None:
        """Have previews made of these requests, and of no others, from the next steps on."""
        with self._lock:
            if watched != self._watched and self._tell is not None:
                self._tell(watched)
            self._watched = watched

    def watched(self) -> Watched:
        return self._watched

    def joined(self, tell: Callable[[str | Watched], None] | None) -> None:
        """Say how a process that runs the batch is told of all this, for as long as it does."""
        with self._lock:
            self._tell = tell
            if tell is not None and self._is_canceled:
                tell(CANCEL)
            elif tell is not None and self._watched:
                tell(self._watched)


class Stepper:
    """The batch's side: what a model's steps go to."""

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
            if previews := self._previews(preview, now):
                self._tell(done, of, previews)
            else:
                self._tell(done, of)

    def _previews(self, preview: Preview | None, now: float) -> Previews:
        """What is to be shown with a step; a model that fails in that draws on nevertheless."""
        watched = self._watched()
        if preview is None or not watched or now - self._shown_at < PREVIEW_S:
            return NONE
        self._shown_at = now
        try:
            return jpegs_of(preview(), watched)
        except Exception as e:  # noqa: BLE001 - a model may raise anything
            log.debug("a preview failed: %r", e)
            return NONE
