"""Redis behind Sentinel: clients and Celery workers find the master, and the next one."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from redis.exceptions import TimeoutError

from crossmodal.errors import BrokerUnavailable
from crossmodal.jobs.connection import broker_errors, connect, connect_async, is_reachable
from crossmodal.jobs.record import JobState
from crossmodal.settings import Settings
from producer import Client
from tests.celery_app import celery_app
from tests.sentinels import SENTINEL_PASSWORD, Group, replicated
from tests.waiting import until
from tests.workers import environment, running_worker, suspended

ROUNDS = int(os.environ.get("SENTINEL_ROUNDS", "1"))
JOBS = int(os.environ.get("SENTINEL_JOBS", "60"))


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    with replicated(tmp_path_factory.mktemp("sentinel")) as group:
        yield group


@pytest.fixture
def settings(group: Group, tmp_path: Path) -> Settings:
    return group.settings((tmp_path / "storage").as_uri(), connect_timeout_s=3.0)


def test_all_who_connect_find_the_master(group: Group, settings: Settings) -> None:
    async def asked() -> bool:
        async with connect_async(settings) as redis:
            return bool(await redis.exists("crossmodal:here") == 0)

    with connect(settings) as redis:
        assert redis.info("replication")["role"] == "master"
    assert asyncio.run(asked())
    assert is_reachable(settings)
    with celery_app(settings) as app, app.connection() as connection:
        assert connection.channel().client.info("replication")["role"] == "master"


def test_a_late_reply_is_nobody_elses(group: Group, settings: Settings) -> None:
    """The command after one that timed out has a reply of its own."""
    hasty = settings.model_copy(update={"connect_timeout_s": 1.0})
    port = group.master()
    assert port is not None
    with connect(hasty) as redis:
        redis.hset("crossmodal:late", "field", "late")
        redis.hset("crossmodal:next", "field", "next")
        with suspended(psutil.Process(group.servers[port].pid)), pytest.raises(TimeoutError):
            redis.hget("crossmodal:late", "field")
        assert redis.hget("crossmodal:next", "field") == "next"


def test_a_name_that_no_sentinel_knows_is_an_outage(group: Group, settings: Settings) -> None:
    wrong = settings.model_copy(update={"sentinel_master": "nobody"})
    with pytest.raises(BrokerUnavailable, match="nobody"), broker_errors(wrong):
        connect(wrong).ping()


def test_sentinels_that_are_not_let_in_to_are_an_outage(settings: Settings) -> None:
    without = settings.model_copy(update={"sentinel_password": None})
    with pytest.raises(BrokerUnavailable) as caught, broker_errors(without):
        connect(without).ping()
    assert SENTINEL_PASSWORD not in str(caught.value)


@pytest.mark.slow
def test_jobs_outlive_a_failover(group: Group, settings: Settings, tmp_path: Path) -> None:
    """`SENTINEL_ROUNDS=10 SENTINEL_JOBS=2000` makes a long one of it; see docs/redis.md."""
    with running_worker(environment(settings), tmp_path / "worker", 4), Client(settings) as client:
        accepted: list[str] = []
        for _ in range(ROUNDS):
            accepted += submitted(client, JOBS)
            until(lambda: replicas_left(group), 60, "replication")  # asynchronous: see the docs
            print(f"failover: {group.kill_master():.1f} s")
            until(lambda: is_reachable(settings), 60, "the new master")
            accepted += submitted(client, JOBS)
            group.revive()
        for job in client.as_completed(accepted, timeout_s=120 + len(accepted) / 5):
            assert client.record(job).state is JobState.SUCCEEDED
        with celery_app(settings) as app:
            asked = app.control.inspect(timeout=10, limit=1)
            told = repr((asked.conf(), asked.stats()))
    assert "sentinel" in told
    assert SENTINEL_PASSWORD not in told
    assert "user's" not in told


def submitted(client: Client, count: int) -> list[str]:
    """Jobs that Redis has accepted: those whose call returned."""
    accepted: list[str] = []

    def submit() -> bool:
        try:
            accepted.append(client.txt2img("a red circle", seed=7).id)
        except BrokerUnavailable:
            return False
        return True

    for _ in range(count):
        until(submit, 60, "a submit")
    return accepted


def replicas_left(group: Group) -> bool:
    """Whether every replica that runs has all that was accepted."""
    running = sum(server.is_alive for server in group.servers.values())
    return group.replicas_in_step() >= running - 1
