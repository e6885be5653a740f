"""A warning about what lasts is logged now and then, and its end once."""

import logging
import time

import pytest

from worker.notices import SAY_AGAIN_S, SETTLED_S, Lasting

log = logging.getLogger(__name__)


class Clock:
    """A monotonic clock that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_warning_is_logged_twice_a_minute_however_often_it_is_due(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Lasting(log, "it fails: %s", "it works again")
    for second in range(120):
        clock.now += 1
        outage.warn(f"reason {second}")
    assert lines(caplog) == [f"it fails: reason {n}" for n in range(0, 120, int(SAY_AGAIN_S))]


def test_the_end_is_logged_once_and_not_between_two_failures(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    outage = Lasting(log, "it fails", "it works again")
    outage.note_success()
    for _ in range(10):
        outage.warn()
        clock.now += 1
        outage.note_success()
    assert lines(caplog) == ["it fails"]
    for _ in range(3):
        clock.now += SETTLED_S
        outage.note_success()
    assert lines(caplog) == ["it fails", "it works again"]


def test_what_comes_and_goes_is_logged_no_more_often(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    outage = Lasting(log, "it fails", "it works again")
    for _ in range(12):
        outage.warn()
        clock.now += SETTLED_S + 2
        outage.note_success()
    assert lines(caplog) == 2 * ["it fails", "it works again"]
