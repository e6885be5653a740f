"""A model's first runs, on its own example: a check that it works, and its run times."""

import time
from typing import NamedTuple

from crossmodal.models.contract import Preview

QUICK_S = 2.0  # a run no longer than this is timed again: the first one includes setup


class Timed(NamedTuple):
    """The times of a run and of each of its steps, in seconds; None if it reports no steps."""

    run_s: float
    step_s: float | None


class Stopwatch:
    """A link that times the steps of a run."""

    def __init__(self) -> None:
        self._at = [time.monotonic()]

    def step(self, done: int, of: int, preview: Preview | None = None) -> None:
        self._at.append(time.monotonic())

    def timed(self) -> Timed:
        """Return the times of the run that ends now; the first step is left out of the mean."""
        run_s = time.monotonic() - self._at[0]
        if len(self._at) < 3:
            return Timed(run_s, None)
        return Timed(run_s, (self._at[-1] - self._at[1]) / (len(self._at) - 2))
