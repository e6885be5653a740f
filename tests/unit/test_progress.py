"""What is told of an attempt's steps, and how often."""

import asyncio
from typing import Any

import pytest

from crossmodal.errors import BrokerUnavailable
from worker import progress
from worker.progress import ProgressTeller


class Told:
    """Stands for the ledger and for what runs its calls: it notes what is told."""

    def __init__(self, *, is_out: bool = False) -> None:
        self.steps: list[tuple[int, int]] = []
        self._is_out = is_out

    def progress(self, attempt: Any, found: Any) -> Any:
        return found

    async def run(self, found: Any) -> None:
        if self._is_out:
            raise BrokerUnavailable("nobody answers")
        self.steps.append((found.step, found.of))


class Attempt:
    job = "job"


def told_of(told: Told) -> ProgressTeller:
    return ProgressTeller(told, told, Attempt())  # type: ignore[arg-type]


def test_steps_that_come_fast_are_told_now_and_then_and_the_last_in_any_case() -> None:
    async def run(told: Told) -> None:
        teller = told_of(told)
        teller.begin()
        for step in range(1, 1_001):
            teller.step(step, 1_000)
            await asyncio.sleep(0)
        await teller.flush()

    told = Told()
    asyncio.run(run(told))
    assert told.steps[-1] == (1_000, 1_000)
    assert len(told.steps) < 50


def test_slow_steps_are_all_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)

    async def run(told: Told) -> None:
        teller = told_of(told)
        for step in range(1, 6):
            teller.step(step, 5)
            for _ in range(10):  # turns of the loop, in which it is told
                await asyncio.sleep(0)
        await teller.flush()

    told = Told()
    asyncio.run(run(told))
    assert told.steps == [(i, 5) for i in range(1, 6)]


def test_an_outage_of_redis_ends_no_job() -> None:
    async def run(told: Told) -> None:
        teller = told_of(told)
        teller.step(1, 2)
        await asyncio.sleep(0)
        teller.step(2, 2)
        await teller.flush()

    told = Told(is_out=True)
    asyncio.run(run(told))
    assert told.steps == []
