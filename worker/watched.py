"""A child process that is restarted when it ends, with a backoff after repeated crashes."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from crossmodal.processes import Child
from worker.beat import age_s

log = logging.getLogger(__name__)

AT_ONCE = 3  # crashes in a row that are followed by a restart without delay
BACKOFF_MAX_S = 30.0
RETRY_S = 5.0  # after the system could not start a process
HEALTHY_AFTER_S = 10.0  # a process that ran this long restarts at once: that is rare enough
START_S = 180.0  # for loading models from a slow disk


@dataclass
class Watched:
    """A child that is restarted when it ends, with a backoff after repeated crashes.

    `says` are the files that it makes, deleted before a restart so that they never describe the
    next process. Its first heartbeat may take `start_s`.
    """

    child: Child
    says: tuple[Path, ...] = ()
    start_s: float = START_S
    crashes: int = 0
    not_before: float = 0.0

    def keep_alive(self) -> None:
        """Start the child if it is not running and its backoff is over."""
        if self.child.is_alive:
            return
        if self.has_ended:
            self.note_end()
        for file in self.says:
            file.unlink(missing_ok=True)
        if time.monotonic() >= self.not_before:
            self._start()

    @property
    def has_ended(self) -> bool:
        """Whether it has ended by itself, and `note_end` has not yet been called."""
        return self.child.process is not None and not self.child.is_alive and not self.not_before

    def note_end(self) -> None:
        """Log that it has ended, and set when it may be restarted."""
        self.child.kill()  # what it had started must not outlive it
        self._note_crash()

    def forget(self) -> None:
        """Reset it to the state before its first start."""
        self.child.kill()  # what it had started must not outlive it
        self.child.process, self.crashes, self.not_before = None, 0, 0.0
        for file in self.says:
            file.unlink(missing_ok=True)

    def silent_s(self, beat: Path) -> float:
        """Return the seconds since its heartbeat; without one, since `start_s` after its start."""
        age = age_s(beat)
        if age is not None:
            return age
        return max(0.0, time.monotonic() - self.child.started_at - self.start_s)

    def _start(self) -> None:
        try:
            self.child.start()
        except OSError as e:  # out of memory or processes: keep watching the others
            log.error("%s cannot be started: %s; again in %g s", self.child.name, e, RETRY_S)
            self.not_before = time.monotonic() + RETRY_S
        else:
            self.not_before = 0.0
            log.info("started %s (pid %s)", self.child.name, self.child.pid)

    def _note_crash(self) -> None:
        ran_s = time.monotonic() - self.child.started_at
        self.crashes = 0 if ran_s > HEALTHY_AFTER_S else self.crashes + 1
        again = max(0, self.crashes - AT_ONCE)
        delay_s = min(BACKOFF_MAX_S, 0.5 * 2 ** min(again, 10)) if again else 0.0
        self.not_before = time.monotonic() + delay_s
        log.error(
            "%s ended with status %s after %.1f s; starting it again in %.1f s",
            self.child.name,
            self.child.returncode,
            ran_s,
            delay_s,
        )
