"""Hosts that share a device take turns, and none waits for ever."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import Txt2ImgParams
from tests.fakes.models import FakeModel
from worker.host import turn as turns
from worker.host.batcher import Batcher
from worker.host.lanes import Lane, Quiet
from worker.host.pipeline import HostRequest
from worker.host.turn import Turn

WAIT_S = 30.0
TASK = Task("txt2img")
Make = Callable[..., Turn]


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(WAIT_S):
            await test()

    asyncio.run(limited())


async def taken(turn: Turn) -> None:
    """Return once it is the host's turn."""
    event = asyncio.Event()
    turn.ask(event.set)
    await event.wait()


async def waiting(turn: Turn, others: Turn) -> asyncio.Event:
    """Ask for a turn that another has, and return once that one sees it."""
    event = asyncio.Event()
    turn.ask(event.set)
    while not others.is_up:  # noqa: ASYNC110 - a file lock tells nobody
        await asyncio.sleep(0.01)
    return event


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Turns on one device, which are up as soon as somebody waits."""
    monkeypatch.setattr(turns, "HOLD_S", 0.0)
    made: list[Turn] = []

    def make(*, shares: bool = False) -> Turn:
        made.append(Turn(tmp_path / "turn", shares=shares))
        return made[-1]

    yield make
    for turn in made:
        turn.close()


def test_one_host_has_the_device_until_it_gives_it_back(make: Make) -> None:
    async def test() -> None:
        mine, other = make(), make()
        await taken(mine)
        mine.note_used()
        assert not mine.is_up
        event = await waiting(other, mine)
        assert (mine.is_mine, other.is_mine, event.is_set()) == (True, False, False)
        mine.give_back()
        await event.wait()
        assert (mine.is_mine, other.is_mine) == (False, True)

    run(test)


def test_those_that_say_so_have_it_together_and_others_do_not(make: Make) -> None:
    async def test() -> None:
        one, two, alone = make(shares=True), make(shares=True), make()
        await taken(one)
        await taken(two)
        two.note_used()
        event = await waiting(alone, two)
        one.give_back()
        assert not alone.is_mine
        two.give_back()
        await event.wait()
        assert alone.is_mine

    run(test)


def test_a_turn_is_not_up_before_a_while(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        mine, other = make(), make()
        await taken(mine)
        mine.note_used()
        event = await waiting(other, mine)
        monkeypatch.setattr(turns, "HOLD_S", 3_600.0)
        assert not mine.is_up
        mine.give_back()
        await event.wait()

    run(test)


def test_a_turn_in_which_nothing_was_run_is_not_up(make: Make) -> None:
    async def test() -> None:
        mine, other = make(), make()
        await taken(mine)
        other.ask(lambda: None)
        while not mine.others_wait:  # noqa: ASYNC110 - a file lock tells nobody
            await asyncio.sleep(0.01)
        assert not mine.is_up
        mine.note_used()
        assert mine.is_up

    run(test)


def test_who_waits_can_be_closed(make: Make) -> None:
    async def test() -> None:
        mine, other = make(), make()
        await taken(mine)
        mine.note_used()
        await waiting(other, mine)
        other.close()
        mine.give_back()
        for thread in threading.enumerate():
            if thread.name == "turn":
                await asyncio.to_thread(thread.join)
        await taken(mine)

    run(test)


def test_hosts_with_jobs_without_end_take_turns(make: Make) -> None:
    async def test() -> None:
        batchers = [host(make()) for _ in range(2)]
        request = HostRequest(Txt2ImgParams(prompt="a", seed=1))
        ran = await asyncio.gather(
            *(one.run(TASK, [request]) for _ in range(20) for one in batchers)
        )
        assert len(ran) == 40
        for one in batchers:
            one.close()

    run(test)


def host(turn: Turn) -> Batcher:
    pipelines = {TASK: FakeModel()}
    lanes = Lane(pipelines, 1), Lane(pipelines, 1)
    return Batcher(pipelines, lanes, Quiet(), max_batch=1, bulk_batch=1, turn=turn)
