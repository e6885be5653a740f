"""Waiting for states, never for times."""

import time
from collections.abc import Callable


def until(condition: Callable[[], bool], timeout_s: float = 60.0, what: str = "it") -> None:
    """Return as soon as `condition()` is true; fail the test when it is not by the deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s:g} s"
        time.sleep(0.02)
