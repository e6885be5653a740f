"""How fast an API key may call, whatever Redis's clock does."""

from collections.abc import Callable
from typing import Any

import pytest

from crossmodal.errors import RateLimited
from crossmodal.jobs.access import ApiKeys
from crossmodal.jobs.names import api_key_key
from crossmodal.jobs.runners import Runner
from crossmodal.settings import Settings

BURST = 3
HOUR_S = 3_600


@pytest.fixture
def call_once(settings: Settings) -> Callable[[], str]:
    """Counts a call of a key that may make three at once; returns where they are counted."""
    runner, keys = Runner(settings), ApiKeys(settings)
    key, _ = runner.run(keys.create("test", per_second=0.01, burst=BURST))

    def call() -> str:
        runner.run(keys.throttle(key))
        return f"{api_key_key(settings.key_prefix, key.id)}:calls"

    return call


def test_calls_at_once_are_counted(call_once: Callable[[], str]) -> None:
    for _ in range(BURST):
        call_once()
    with pytest.raises(RateLimited):
        call_once()


def test_a_clock_that_was_put_back_refuses_nobody(call_once: Callable[[], str], admin: Any) -> None:
    """As if the calls so far had been made an hour from now; from now on they count again."""
    number = call_once()
    admin.set(number, float(admin.get(number)) + HOUR_S)
    for _ in range(BURST):
        call_once()
    with pytest.raises(RateLimited):
        call_once()
