"""Heartbeats: files that processes touch while they are well, for others on the same machine.

Their times are of the clock that nobody can set, so that a process that hangs counts as silent
whatever becomes of the machine's clock.
"""

import os
import time
from contextlib import suppress
from pathlib import Path


def touch(beat: Path, waits_for: str = "") -> None:
    """Show that this process is well, and what it waits for, if it takes no jobs."""
    if heard(beat) != waits_for:
        beat.write_text(waits_for)
    now = time.monotonic()
    os.utime(beat, (now, now))


def heard(beat: Path) -> str | None:
    """What a process waits for; None where it has never beaten."""
    with suppress(FileNotFoundError):
        return beat.read_text()
    return None


def age_s(beat: Path) -> float | None:
    """Seconds since a heartbeat; None where there is none."""
    with suppress(FileNotFoundError):
        return max(0.0, time.monotonic() - beat.stat().st_mtime)
    return None
