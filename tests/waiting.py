"""Waiting for states, never for times."""

from collections.abc import Callable

from crossmodal.processes import wait_until


def until(condition: Callable[[], bool], timeout_s: float = 60.0, what: str = "it") -> None:
    """Return as soon as `condition()` is true; fail the test when it is not by the deadline."""
    assert wait_until(condition, timeout_s), f"{what} did not happen within {timeout_s:g} s"
