"""Clocks that are wrong or are set: live processes go on, hung and dead ones are detected."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crossmodal.jobs.leases import Leases
from crossmodal.jobs.ledger import Attempt, JobLedger, NotStarted
from crossmodal.jobs.message import message_of
from crossmodal.jobs.names import (
    celery_prefix,
    leases_key,
    messages_key,
    new_job_id,
    webhooks_key,
    workers_key,
)
from crossmodal.jobs.origin import Origin, Webhook
from crossmodal.jobs.runners import Runner
from crossmodal.jobs.submission import Submission
from crossmodal.jobs.webhooks import MAX_OF_OWNER, Deliveries
from crossmodal.jobs.workers import Workers
from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.settings import Settings
from tests.celery_app import celery_app
from tests.waiting import until
from worker import beat
from worker.celery.lanes import Lanes
from worker.celery.lease import Lease
from worker.celery.take import Taker
from worker.celery.unacked import ENDED

HOUR = 3_600.0
WAIT_S = 60


@pytest.fixture
def channel(settings: Settings) -> Iterator[Any]:
    """Yield a worker's channel for messages."""
    with celery_app(settings) as app, app.connection_for_read() as connection:
        yield connection.channel()


def index(settings: Settings) -> str:
    return celery_prefix(settings.key_prefix) + "unacked_index"


@pytest.mark.parametrize("shift_s", [-HOUR, HOUR])
def test_a_process_that_hangs_is_silent_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift_s: float
) -> None:
    beat.touch(tmp_path / "beat")
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + shift_s)
    age_s = beat.age_s(tmp_path / "beat")
    assert age_s is not None
    assert age_s < WAIT_S
    until(lambda: (beat.age_s(tmp_path / "beat") or 0) > age_s + 0.2, WAIT_S, "its silence")


@pytest.mark.parametrize("shift_s", [-HOUR, HOUR])
def test_messages_in_hand_are_noted_by_the_clock_of_redis(
    settings: Settings, channel: Any, admin: Any, monkeypatch: pytest.MonkeyPatch, shift_s: float
) -> None:
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + shift_s)
    with channel.conn_or_acquire() as client:
        [taken] = Taker(channel, client).take([], ("txt2img", b"{}"))
    score = admin.zscore(index(settings), taken.tag)
    assert abs(score - admin.time()[0]) < WAIT_S


@pytest.mark.parametrize(
    ("ago_s", "is_given_out"),
    [(0, False), (HOUR, True), (-HOUR, True)],
    ids=["renewed", "of a dead worker", "from before the clock of Redis was put back"],
)
def test_a_sweep_gives_out_what_nobody_renews(
    settings: Settings, channel: Any, admin: Any, ago_s: float, is_given_out: bool
) -> None:
    admin.zadd(index(settings), {"tag": admin.time()[0] - ago_s})
    channel.qos.sweep(10, lambda _: True)
    assert (admin.zscore(index(settings), "tag") is None) is is_given_out


def test_a_sweep_gives_out_nothing_that_has_ended_while_redis_was_away(
    settings: Settings, channel: Any, admin: Any
) -> None:
    prefix = celery_prefix(settings.key_prefix)
    message = message_of("ended", Txt2ImgParams(prompt="a circle", seed=1))
    admin.hset(f"{prefix}unacked", "tag", f'[{message},"","txt2img"]')
    admin.zadd(index(settings), {"tag": ENDED})
    channel.shared.acked.append("tag")  # no message comes whose script would send it
    channel.qos.sweep(10, lambda _: True)
    assert admin.hlen(f"{prefix}unacked") == 0
    assert admin.llen(messages_key(settings.key_prefix, "txt2img")) == 0


def test_only_what_is_known_to_be_of_the_dead_is_given_out_before_all_could_renew(
    settings: Settings, channel: Any, admin: Any
) -> None:
    admin.zadd(index(settings), {"of the dead": ENDED, "silent": admin.time()[0] - HOUR})
    channel.qos.sweep(10, lambda _: False)
    assert admin.zrange(index(settings), 0, -1) == ["silent"]


def test_a_lease_from_before_the_clock_of_redis_was_put_back_keeps_no_job(
    settings: Settings, admin: Any
) -> None:
    ledger, job_id = JobLedger(settings), new_job_id()
    with Runner(settings) as runner:
        runner.run(ledger.submit(Submission(job_id, Task("txt2img"), "{}", "")))
        runner.run(ledger.start(job_id, "dead"))
        assert runner.run(ledger.start(job_id, "another")) == NotStarted("busy")
        admin.zadd(leases_key(settings.key_prefix), {job_id: admin.time()[0] + HOUR})
        assert not runner.run(ledger.is_leased(job_id))
        assert isinstance(runner.run(ledger.start(job_id, "another")), Attempt)


def test_a_job_whose_lease_is_from_before_that_gets_another_message(
    settings: Settings, admin: Any
) -> None:
    ledger, job_id = JobLedger(settings), new_job_id()
    with Runner(settings) as runner:
        runner.run(ledger.submit(Submission(job_id, Task("txt2img"), "{}")))
        runner.run(ledger.start(job_id, "dead"))
        job = runner.run(ledger.get(job_id))
        assert not runner.run(ledger.requeue(job, "again"))
        admin.zadd(leases_key(settings.key_prefix), {job_id: admin.time()[0] + HOUR})
        assert runner.run(ledger.requeue(job, "again"))


def test_a_worker_that_died_before_that_is_not_taken_for_one_that_lives(
    settings: Settings, admin: Any
) -> None:
    """Else the others would not load its models for an hour."""
    workers = Workers(settings)
    with Runner(settings) as runner:
        runner.run(workers.announce("cpu.1@here", queues=[]))
        assert [one.name for one in runner.run(workers.recent())] == ["cpu.1@here"]
        said = {"queues": [], "seen_at": admin.time()[0] + HOUR}
        admin.hset(workers_key(settings.key_prefix), "cpu.1@here", json.dumps(said))
        assert runner.run(workers.recent()) == []


def test_a_lease_is_held_by_one_until_it_ends_or_the_clock_is_put_back(
    settings: Settings, admin: Any
) -> None:
    leases, key = Leases(settings), f"{settings.key_prefix}:lease"
    with Runner(settings) as runner:
        assert runner.run(leases.hold(key, "one"))
        assert runner.run(leases.hold(key, "one"))
        assert not runner.run(leases.hold(key, "another"))
        runner.run(leases.end(key, "another"))
        assert not runner.run(leases.hold(key, "another"))
        admin.set(key, f"{admin.time()[0] + HOUR} one", ex=7_200)
        assert runner.run(leases.hold(key, "another"))
        runner.run(leases.end(key, "another"))
        assert admin.get(key) is None


def test_deliveries_are_not_put_off_with_the_clock(settings: Settings, admin: Any) -> None:
    """One that was to be tried again in a minute is, when an hour has been taken back."""
    deliveries, pending = Deliveries(settings), webhooks_key(settings.key_prefix, "pending")
    with Runner(settings) as runner:
        runner.run(deliveries.claim_due(1))
        now = admin.time()[0]
        admin.set(webhooks_key(settings.key_prefix, "clock"), now + HOUR)
        admin.zadd(pending, {"soon": now + HOUR + 60, "was due": now + HOUR - 60, "due": now - 1})
        runner.run(deliveries.claim_due(0))
        runner.run(deliveries.claim_due(0))
    due = dict(admin.zrange(pending, 0, -1, withscores=True))
    assert due["soon"] == pytest.approx(now + 60, abs=WAIT_S / 2)
    assert due["was due"] == pytest.approx(now, abs=WAIT_S / 2)


def test_deliveries_that_were_claimed_before_that_leave_room_for_others(
    settings: Settings, admin: Any
) -> None:
    deliveries, ledger, job_id = Deliveries(settings), JobLedger(settings), new_job_id()
    hook = Webhook(url="https://receiver.example/hooks", base="https://gateway.example")
    job = Submission(job_id, Task("txt2img"), "{}", origin=Origin("me", webhook=hook))
    tried = webhooks_key(settings.key_prefix, "tried:me")
    admin.zadd(tried, {str(i): admin.time()[0] + HOUR for i in range(MAX_OF_OWNER)})
    with Runner(settings) as runner:
        runner.run(ledger.submit(job))
        runner.run(ledger.cancel(job_id))
        assert len(runner.run(deliveries.claim_due(10))) == 1


@pytest.mark.parametrize("step_s", [HOUR, -HOUR])
def test_nothing_is_given_out_again_until_all_who_live_could_renew(
    settings: Settings, admin: Any, step_s: float
) -> None:
    """Neither when Redis has just come back, nor when a sweep finds that its clock was set."""

    def redis_s() -> float:
        seconds, micros = admin.time()
        return float(seconds + micros / 1e6)

    async def watch() -> list[bool]:
        pool: Any = SimpleNamespace(lanes=Lanes(), running_ids=set())
        lease = Lease(
            settings.model_copy(update={"connect_timeout_s": 1.0}), pool, "worker", ["txt2img"]
        )
        lease.qos = SimpleNamespace(_delivered=(), unacked_index_key="unacked_index")
        seen = [lease.may_sweep(redis_s())]
        await lease.renew()
        seen.append(lease.may_sweep(redis_s()))
        async with asyncio.timeout(WAIT_S):
            while not lease.may_sweep(redis_s()):  # noqa: ASYNC110 - a clock has no event
                await asyncio.sleep(0.1)
        seen.append(lease.may_sweep(redis_s() + step_s))
        await lease.close()
        return seen

    assert asyncio.run(watch()) == [False, False, False]


def test_a_worker_that_asks_again_goes_on_with_the_attempt_that_it_has_begun(
    settings: Settings,
) -> None:
    """The reply to its first call was lost with the connection."""
    ledger, job_id = JobLedger(settings), new_job_id()
    with Runner(settings) as runner:
        runner.run(ledger.submit(Submission(job_id, Task("txt2img"), "{}", "")))
        first = runner.run(ledger.start(job_id, "worker"))
        assert runner.run(ledger.start(job_id, "worker", again=True)) == first
        assert runner.run(ledger.start(job_id, "another", again=True)) == NotStarted("busy")
        assert runner.run(ledger.start(job_id, "worker")) == NotStarted("busy")
