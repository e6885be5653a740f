"""A model's first runs, on its own example: they show that it works, and how long it takes."""

import time
from typing import NamedTuple

from crossmodal.models.contract import Preview

QUICK_S = 2.0  # a run that takes no longer is timed again: the first one prepares much


class Timed(NamedTuple):
    """How long a run took, and each of its steps, in seconds; None of a model that tells none."""

    run_s: float
    step_s: float | None


class Stopwatch:
    """Takes the steps of a run."""

    def __init__(self) -> None:
        self._at = [time.monotonic()]

    def step(self, done: int, of: int, preview: Preview | None = None) -> None:
        self._at.append(time.monotonic())

    def timed(self) -> Timed:
        """The run that ends now; its first step is left out of the others' mean."""
        run_s = time.monotonic() - self._at[0]
        if len(self._at) < 3:
            return Timed(run_s, None)
        return Timed(run_s, (self._at[-1] - self._at[1]) / (len(self._at) - 2))
