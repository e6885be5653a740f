"""What a worker says of itself while it consumes, and when it drains."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state

from crossmodal.jobs.names import celery_prefix
from crossmodal.jobs.runners import Runner
from crossmodal.jobs.workers import Workers
from crossmodal.settings import Settings
from worker.beat import heard
from worker.celery.lanes import Lanes
from worker.celery.lease import SILENT_S, Lease, beat

WORKER = "cpu.1@here"


@asynccontextmanager
async def leasing(settings: Settings, lanes: Lanes, *delivered: str) -> AsyncIterator[Lease]:
    pool: Any = SimpleNamespace(lanes=lanes, running_ids=set())
    lease = Lease(settings, pool, WORKER, ["txt2img"])
    lease.qos = SimpleNamespace(_delivered=delivered, unacked_index_key="unacked_index")
    yield lease
    await lease.close()


def known(settings: Settings) -> list[str]:
    with Runner(settings) as runner:
        return [worker.name for worker in runner.run(Workers(settings).recent())]


def test_a_worker_that_drains_is_no_longer_counted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def renew_twice() -> None:
        async with leasing(settings, Lanes()) as lease:
            await lease.renew()
            assert known(settings) == [WORKER]
            monkeypatch.setattr(state, "should_stop", 0)
            for _ in range(2):
                await lease.renew()
                assert known(settings) == []

    asyncio.run(renew_twice())


def test_what_is_in_hand_is_renewed_also_that_of_a_lost_connection(
    settings: Settings, admin: Any
) -> None:
    key = celery_prefix(settings.key_prefix) + "unacked_index"
    admin.zadd(key, {"new": 1, "of a lost connection": 1, "another's": 1})
    lanes = Lanes()
    lanes.bulk.tags.add("of a lost connection")

    async def renew() -> None:
        async with leasing(settings, lanes, "new", "given back") as lease:
            await lease.renew()

    asyncio.run(renew())
    scores = dict(admin.zrange(key, 0, -1, withscores=True))
    assert scores.pop("another's") == 1
    assert set(scores) == {"new", "of a lost connection"}
    assert all(abs(score - time.time()) < 60 for score in scores.values())


@pytest.mark.parametrize(
    ("polled", "has_room", "queues", "turned", "silent", "beats"),
    [
        (0, True, {"txt2img"}, 0, 29, True),
        (9, True, {"txt2img"}, 0, 0, False),
        (9, False, {"txt2img"}, 0, 0, True),
        (9, True, set(), 0, 0, True),
        (0, True, {"txt2img"}, 9, 0, False),
        (0, True, {"txt2img"}, 0, 60, False),
    ],
    ids=[
        "well",
        "consumes nothing",
        "full",
        "between two models",
        "the jobs' loop hangs",
        "remote control is deaf",
    ],
)
def test_the_heartbeat_is_of_both_loops(
    tmp_path: Path,
    polled: float,
    has_room: bool,
    queues: set[str],
    turned: float,
    silent: float,
    beats: bool,
) -> None:
    assert SILENT_S < 9
    now = time.monotonic()
    shared = SimpleNamespace(polled_at=now - polled)
    connection = SimpleNamespace(cycle=SimpleNamespace(silent_s=silent))
    channel = SimpleNamespace(
        shared=shared,
        has_room=has_room,
        active_queues=queues,
        connection=connection,
        health_check_interval=30,
        refusal="",
    )
    pool: Any = SimpleNamespace(
        loop=SimpleNamespace(turned_at=now - turned), lanes=Lanes(), goes_on=lambda: True
    )
    assert beat(channel, pool, tmp_path / "beat") is beats
    assert (tmp_path / "beat").exists() is beats


@pytest.mark.parametrize(
    ("outage", "silent_s", "drains", "says"),
    [
        ("Redis is away", 9, False, "Redis is away"),
        ("Redis is away", 1, False, None),
        ("", 9, False, None),
        ("", 9, True, ""),
    ],
    ids=["an outage", "Celery's loop turns", "deaf while Redis answers", "drains"],
)
def test_the_jobs_loop_beats_when_celery_waits_for_redis_and_not_when_it_is_deaf(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    outage: str,
    silent_s: float,
    drains: bool,
    says: str | None,
) -> None:
    monkeypatch.setattr(state, "should_stop", 0 if drains else None)
    own = settings.model_copy(update={"heartbeat_file": tmp_path / "beat"})

    async def beaten() -> None:
        async with leasing(own, Lanes()) as lease:
            lease.outage, lease.beaten_at = outage, time.monotonic() - silent_s
            lease.beat_instead()

    asyncio.run(beaten())
    assert heard(tmp_path / "beat") == says
