"""What is told of an attempt's steps, and how often."""

import asyncio
from typing import Any

import pytest

from crossmodal.errors import BrokerUnavailable, StorageUnavailable
from worker import progress
from worker.previews import AttemptPreviews, Previews
from worker.progress import ProgressTeller


class Told:
    """Stands for the ledger and for what runs its calls: it notes what is told."""

    def __init__(self, *, is_out: bool = False) -> None:
        self.steps: list[tuple[int, int]] = []
        self.numbers: list[int] = []
        self.is_watched = False
        self._is_out = is_out

    def progress(self, attempt: Any, found: Any) -> Any:
        return found

    async def run(self, found: Any) -> bool:
        if self._is_out:
            raise BrokerUnavailable("nobody answers")
        self.steps.append((found.step, found.of))
        self.numbers.append(found.preview.number if found.preview else 0)
        return self.is_watched


class Attempt:
    job, number = "job", 1


class Store:
    """Stands for the object store: it notes what is put there and deleted."""

    def __init__(self, error: Exception | None = None) -> None:
        self.done: list[tuple[str, ...]] = []
        self._error = error

    async def call(self, function: Any, *args: Any) -> None:
        await asyncio.sleep(0)
        if self._error is not None:
            raise self._error
        function(*args)

    def put_preview(self, key: str, data: bytes) -> None:
        self.done.append((key, data.decode()))

    def delete(self, key: str) -> None:
        self.done.append((key,))


def told_of(told: Told, previews: AttemptPreviews | None = None) -> ProgressTeller:
    previews = previews or Previews(Store()).of(Attempt())  # type: ignore[arg-type]
    return ProgressTeller(told, told, Attempt(), previews)  # type: ignore[arg-type]


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


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_who_watches_is_told_to_the_host_as_they_come_and_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    heard: list[bool] = []

    async def run(told: Told) -> None:
        teller = told_of(told)
        teller.audience.told_to(heard.append)
        for step, told.is_watched in enumerate((False, True, True, False), 1):
            teller.step(step, 5)
            await turns()

    asyncio.run(run(Told()))
    assert heard == [True, False]


def test_a_preview_is_stored_and_then_told_and_deleted_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    told, store = Told(), Store()

    async def run() -> None:
        every = Previews(store)  # type: ignore[arg-type]
        previews = every.of(Attempt())  # type: ignore[arg-type]
        teller = told_of(told, previews)
        for step, preview in ((1, None), (2, b"first"), (3, b"second")):
            teller.step(step, 3, preview)
            await turns()
        await teller.flush()
        every.end(previews)
        await every.close()

    asyncio.run(run())
    key = "previews/job/1.jpeg"
    assert store.done == [(key, "first"), (key, "second"), (key,)]
    assert (told.numbers[0], told.numbers[-1], told.numbers) == (0, 2, sorted(told.numbers))


def test_of_a_job_without_previews_nothing_is_deleted() -> None:
    store = Store()

    async def run() -> None:
        every = Previews(store)  # type: ignore[arg-type]
        every.end(every.of(Attempt()))  # type: ignore[arg-type]
        await every.close()

    asyncio.run(run())
    assert store.done == []


def test_a_store_that_takes_no_preview_ends_no_job() -> None:
    told = Told()

    async def run() -> None:
        every = Previews(Store(StorageUnavailable("it is away")))  # type: ignore[arg-type]
        previews = every.of(Attempt())  # type: ignore[arg-type]
        teller = told_of(told, previews)
        teller.step(1, 2, b"first")
        await turns()
        await teller.flush()
        every.end(previews)
        await every.close()

    asyncio.run(run())
    assert (told.steps, told.numbers) == ([(1, 2)], [0])
