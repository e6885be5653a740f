"""Waiting for conditions instead of fixed times."""

from collections.abc import Callable

from crossmodal.processes import wait_until


def until(condition: Callable[[], bool], timeout_s: float = 60.0, what: str = "it") -> None:
    """Wait until `condition()` is true; fail the test after `timeout_s`."""
    assert wait_until(condition, timeout_s), f"{what} did not happen within {timeout_s:g} s"
