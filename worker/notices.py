"""Warnings about something that lasts, as an outage: at most twice a minute, and one at its end."""

import logging
import math
import time

SAY_AGAIN_S = 30.0
SETTLED_S = 3.0  # without a failure: some calls succeed in an outage, such as reads


class Pace:
    """A limit to one line in `SAY_AGAIN_S`."""

    def __init__(self) -> None:
        self._said_at = -math.inf

    def allows(self) -> bool:
        """Return whether a line may be logged now; if so, the next one has to wait."""
        now = time.monotonic()
        if now - self._said_at < SAY_AGAIN_S:
            return False
        self._said_at = now
        return True


class Lasting:
    """A warning that is due again and again while its cause lasts, and the line that ends it.

    The limit also holds for a cause that comes and goes, of which not each end is logged.
    """

    def __init__(self, log: logging.Logger, warning: str, end: str) -> None:
        self._log = log
        self._warning = warning
        self._end = end
        self._pace = Pace()
        self._was_said = False
        self._failed_at = -math.inf

    def warn(self, *args: object) -> None:
        """Log the warning, with these arguments, unless it was logged a moment ago."""
        self._failed_at = time.monotonic()
        if self._pace.allows():
            self._was_said = True
            self._log.warning(self._warning, *args)

    def note_success(self) -> None:
        """Log the end, if there was a warning, and no failure for `SETTLED_S`; call it often."""
        if self._was_said and time.monotonic() - self._failed_at >= SETTLED_S:
            self._was_said = False
            self._log.info(self._end)
