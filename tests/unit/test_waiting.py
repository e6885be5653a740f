"""The waiting itself, on real streams; and what it must not wait for."""

import asyncio
import gc
import time
from collections.abc import Iterator
from typing import Any

import pytest

from crossmodal.errors import InvalidParams, JobCanceled, JobExpired, ResultTimeout
from crossmodal.jobs.calls import Command, Step
from crossmodal.jobs.record import JobState
from crossmodal.settings import Settings
from producer import AsyncClient, Client
from producer.events import Events
from tests.at_once import at_once


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    """A client of a queue that no worker serves."""
    with Client(settings) as client:
        yield client


def test_a_job_expires_for_its_waiter_where_no_worker_is(client: Client) -> None:
    job = client.txt2img("a circle", expires_in_s=0.5)
    with pytest.raises(JobExpired):
        job.result(timeout_s=30)


def test_a_zero_timeout_is_enough_for_a_job_that_has_ended(client: Client) -> None:
    job = client.txt2img("a circle")
    with pytest.raises(ResultTimeout):
        job.wait(timeout_s=0)
    job.cancel()
    assert job.wait(timeout_s=0) is JobState.CANCELED


def test_a_result_reads_its_record_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    job = client.txt2img("a circle")
    job.cancel()
    sent: list[str] = []
    reply = client.runner._reply

    def noted(step: Step) -> Any:
        some = step if isinstance(step, list) else [step]
        sent.extend(one.args[0] for one in some if isinstance(one, Command))
        return reply(step)

    monkeypatch.setattr(client.runner, "_reply", noted)
    with pytest.raises(JobCanceled):
        job.result(timeout_s=5)
    assert sent == ["TIME", "TIME", "HMGET", "HGETALL"]


def test_an_asynchronous_client_goes_from_one_event_loop_to_the_next(settings: Settings) -> None:
    client = AsyncClient(settings)

    async def canceled() -> JobState:
        job = await client.txt2img("a circle")
        waiting = asyncio.create_task(job.wait(timeout_s=30))
        await asyncio.sleep(0)
        await job.cancel()
        return await waiting

    for _ in range(2):
        assert asyncio.run(canceled()) is JobState.CANCELED
        gc.collect()  # of connections that were left open, Python would warn
    asyncio.run(client.close())


def test_a_record_is_read_now_and_then_also_while_others_alone_are_told_of() -> None:
    others = [["a shard", [("1-1", {"id": "other"})]]]
    events = Events("mine", "prefix", block_s=1.0, check_at=time.monotonic() + 60)
    assert events.feed(others) == ([], False)
    events.check_at = time.monotonic()
    assert events.feed(others) == ([], True)


@at_once("seconds", [-1.0, float("nan"), float("inf")])
def test_an_expiry_that_is_no_duration_is_refused(client: Client, seconds: float) -> None:
    with pytest.raises(InvalidParams, match="expires_in_s"):
        client.txt2img("a circle", expires_in_s=seconds)


@at_once("key", ["", "x" * 201, "a\nb", "\ud800"])
def test_an_idempotency_key_has_limits(client: Client, key: str) -> None:
    with pytest.raises(InvalidParams, match="idempotency key"):
        client.txt2img("a circle", idempotency_key=key)
