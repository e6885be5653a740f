"""What ends an attempt's work early."""

import asyncio
from contextvars import ContextVar

import pytest

from crossmodal.errors import TimedOut
from crossmodal.jobs.ledger import Attempt
from worker.cancel import CancelToken, InHand, Superseded

ATTEMPT = Attempt("job", 1, {}, 0.0, 0.0, 1, 0, is_last=False, is_suspect=False)
LONG_S = 60.0


async def held(token: CancelToken, *, cleaning_s: float = 0.0) -> None:
    """Work that never ends by itself, and takes its time to clean up."""
    async with token.held():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(cleaning_s)


def test_work_that_is_lost_ends() -> None:
    async def scenario() -> None:
        token = CancelToken(ATTEMPT, LONG_S)
        work = asyncio.create_task(held(token))
        await asyncio.sleep(0)
        token.lose()
        await work

    with pytest.raises(Superseded):
        asyncio.run(scenario())


def test_work_that_is_lost_again_while_it_cleans_up_ends_as_lost() -> None:
    async def scenario() -> None:
        token = CancelToken(ATTEMPT, LONG_S)
        work = asyncio.create_task(held(token, cleaning_s=0.1))
        await asyncio.sleep(0)
        for _ in range(3):
            token.lose()
            await asyncio.sleep(0.02)
        await work

    with pytest.raises(Superseded):
        asyncio.run(scenario())


def test_work_over_its_limit_has_timed_out_also_if_it_is_lost_then() -> None:
    async def scenario() -> None:
        token = CancelToken(ATTEMPT, 0.01)
        work = asyncio.create_task(held(token, cleaning_s=0.1))
        await asyncio.sleep(0.05)
        token.lose()
        await work

    with pytest.raises(TimedOut, match=r"0\.01 s"):
        asyncio.run(scenario())


def test_no_run_time_passes_off_the_clock() -> None:
    async def scenario() -> bool:
        token = CancelToken(ATTEMPT, 0.1)
        async with token.held():
            with token.off_the_clock():
                await asyncio.sleep(0.3)
            return True

    assert asyncio.run(scenario())


def test_run_time_passes_again_once_it_is_the_attempts_turn() -> None:
    async def scenario() -> None:
        token = CancelToken(ATTEMPT, 0.05)
        async with token.held():
            with token.off_the_clock():
                token.resume()
                await asyncio.sleep(LONG_S)

    with pytest.raises(TimedOut):
        asyncio.run(scenario())


def test_work_that_is_lost_off_the_clock_ends() -> None:
    async def scenario() -> None:
        token = CancelToken(ATTEMPT, LONG_S)

        async def waiting() -> None:
            async with token.held():
                with token.off_the_clock():
                    await asyncio.Event().wait()

        work = asyncio.create_task(waiting())
        await asyncio.sleep(0)
        token.lose()
        await work

    with pytest.raises(Superseded):
        asyncio.run(scenario())


JOB = ContextVar("JOB", default="none")


class Lost:
    """Stands for the ledger and for what runs its calls: all attempts are lost."""

    def __init__(self) -> None:
        self.checked_for: list[str] = []

    def lost(self, attempts: list[Attempt]) -> list[Attempt]:
        return attempts

    async def run(self, attempts: list[Attempt]) -> list[Attempt]:
        self.checked_for.append(JOB.get())
        return attempts


def test_attempts_are_checked_in_the_name_of_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.cancel.CHECK_S", 0.0)

    async def scenario(lost: Lost) -> None:
        JOB.set("the first job")
        token = CancelToken(ATTEMPT, LONG_S)
        with InHand(lost, lost).watching(token):  # type: ignore[arg-type]
            await held(token)

    lost = Lost()
    with pytest.raises(Superseded):
        asyncio.run(scenario(lost))
    assert set(lost.checked_for) == {"none"}


def test_a_timeout_of_somebody_else_stays_one() -> None:
    async def scenario() -> None:
        async with CancelToken(ATTEMPT, LONG_S).held():
            raise TimeoutError("of a socket")

    with pytest.raises(TimeoutError, match="of a socket"):
        asyncio.run(scenario())
