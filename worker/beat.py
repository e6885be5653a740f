"""Heartbeats: files that healthy processes touch, for other processes on the same machine.

Their times are of the monotonic clock, so that setting the machine's clock neither hides nor
feigns a hang.
"""

import os
import time
from contextlib import suppress
from pathlib import Path


def touch(beat: Path, waits_for: str = "") -> None:
    """Record that this process is healthy, and what it waits for if it takes no jobs."""
    if heard(beat) != waits_for:
        beat.write_text(waits_for)
    now = time.monotonic()
    os.utime(beat, (now, now))


def heard(beat: Path) -> str | None:
    """Return what a process waits for; None if it has no heartbeat yet."""
    with suppress(FileNotFoundError):
        return beat.read_text()
    return None


def age_s(beat: Path) -> float | None:
    """Return the seconds since a heartbeat; None if there is none."""
    with suppress(FileNotFoundError):
        return max(0.0, time.monotonic() - beat.stat().st_mtime)
    return None
