"""How far a job is: told by its model's steps, seen by everybody who follows it."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from crossmodal.jobs.record import JobEvent, Progress
from crossmodal.processes import Child
from crossmodal.settings import Settings, load_settings
from producer import AsyncClient, Client, JobHandle
from tests.fakes.models import STEP_S, STEPS
from tests.gateway import Gateway, running_gateway
from tests.waiting import until
from tests.workers import environment, host_of, running_worker
from worker.devices import cores

ALL = [(step, STEPS["painter"]) for step in range(1, STEPS["painter"] + 1)]
WAIT_S = 60.0
IN_HAND = 4  # jobs of the worker


@dataclass(frozen=True)
class World:
    """A gateway, and a worker whose models take steps."""

    settings: Settings
    gateway: Gateway
    worker: Child


@pytest.fixture(scope="module")
def world(valkey_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("progress")
    settings = load_settings(
        broker_url=valkey_server,
        result_backend="",
        key_prefix="test-progress",
        storage_url=(folder / "storage").as_uri(),
    )
    env = environment(settings)
    with (
        running_worker(env, folder / "worker", IN_HAND) as worker,
        running_gateway(env, folder) as gateway,
    ):
        yield World(settings, gateway, worker)


@pytest.fixture
def client(world: World) -> Iterator[Client]:
    with Client(world.settings) as client:
        yield client


def steps(events: list[Any]) -> list[tuple[int, int]]:
    return [(event.step, event.of) for event in events if isinstance(event, Progress)]


def is_told(found: list[tuple[int, int]]) -> bool:
    """Whether steps were told in their order to the last; on a busy machine one may be passed."""
    rises = all(before < after for before, after in pairwise(found))
    return rises and set(found) <= set(ALL) and len(found) >= len(ALL) - 2 and found[-1] == ALL[-1]


def streamed(world: World, job: str, last_id: str = "") -> Iterator[tuple[str, str, Any]]:
    """Events of a job as they come over HTTP: name, id, data."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    with world.gateway.http.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as reply:
        event: dict[str, str] = {}
        for line in reply.iter_lines():
            name, _, value = line.partition(": ")
            event[name] = value
            if not line:
                yield event.get("event", ""), event.get("id", ""), json.loads(event["data"])
                event = {}


def test_every_step_of_a_slow_model_is_told(client: Client) -> None:
    job = client.txt2img("a painter", seed=1)
    events = list(job.events())
    assert is_told(steps(events))
    states = [event.state for event in events if isinstance(event, JobEvent)]
    assert states == ["queued", "running", "succeeded"]
    assert [e.state for e in job.events() if isinstance(e, JobEvent)] == states  # it is replayed


def test_the_asynchronous_twin_is_told_the_same(world: World) -> None:
    async def follow() -> list[Any]:
        async with AsyncClient(world.settings) as client:
            job = await client.txt2img("a painter", seed=1)
            return [event async for event in job.events()]

    assert is_told(steps(asyncio.run(follow())))


def test_a_status_says_how_far_the_job_is(client: Client) -> None:
    job = client.txt2img("a painter", seed=1)
    until(lambda: job.status().progress is not None)
    progress = job.status().progress
    assert progress is not None
    assert (progress.of, 0 <= progress.left_s < WAIT_S) == (6, True)
    job.wait(WAIT_S)
    assert job.status().progress is None


def test_steps_come_as_server_sent_events_also_after_a_reconnect(
    world: World, client: Client
) -> None:
    job = client.txt2img("a painter", seed=1)
    told, last_id = [], ""
    for name, event_id, data in streamed(world, job.id):
        last_id = event_id or last_id
        if name == "progress":
            told.append((data["step"], data["of"]))
            if len(told) == 2:
                break
    for name, _, data in streamed(world, job.id, last_id):
        assert name != "state" or data["state"] == "succeeded"  # others were told before
        if name == "progress" and (data["step"], data["of"]) not in told:
            told.append((data["step"], data["of"]))
    assert is_told(told)


def test_a_canceled_job_ends_its_batch_within_a_step(client: Client) -> None:
    places = min(cores(), IN_HAND)
    jobs = [running_job(client, "a sculptor", seed) for seed in range(places)]
    for job in jobs:
        job.cancel()
    next_one = client.txt2img("a circle").result(timeout_s=WAIT_S)
    assert next_one.timings.batch_wait_s < STEPS["sculptor"] * STEP_S / 4


def running_job(client: Client, prompt: str, seed: int) -> JobHandle:
    """A job that has taken a place of its own on the device."""
    job = client.txt2img(prompt, seed=seed)
    until(lambda: job.status().progress is not None)
    return job


def test_one_that_is_canceled_among_others_changes_nothing_of_theirs(client: Client) -> None:
    alone = client.txt2img("a painter", seed=3).result(timeout_s=WAIT_S).images[0].sha256
    jobs = [client.txt2img("a painter", seed=seed) for seed in (3, 4, 5, 6)]
    until(lambda: jobs[1].status().progress is not None)
    jobs[1].cancel()
    assert jobs[0].result(timeout_s=WAIT_S).images[0].sha256 == alone
    assert [job.wait(WAIT_S) for job in jobs] == ["succeeded", "canceled", *["succeeded"] * 2]


def test_another_attempt_begins_again_and_says_so(world: World, client: Client) -> None:
    job = client.txt2img("a painter", seed=1)
    events: list[Any] = []
    for event in job.events():
        events.append(event)
        if isinstance(event, Progress) and len(steps(events)) == 3:
            host_of(world.worker).kill()
    again = steps(events)[3:]
    assert steps(events)[2][0] >= 3
    assert (is_told(again), again[0][0] < 3) == (True, True)
    attempts = [event.attempt for event in events if isinstance(event, JobEvent)]
    assert attempts[-1] == 2


def test_a_batch_that_takes_steps_may_take_longer_than_one_that_is_silent(
    world: World, tmp_path: Path
) -> None:
    env = environment(world.settings) | {
        "CROSSMODAL_INFERENCE_TIMEOUT_S": "2",
        "CROSSMODAL_KEY_PREFIX": "test-silence",
    }
    settings = world.settings.model_copy(update={"key_prefix": "test-silence"})
    with running_worker(env, tmp_path / "worker", 4), Client(settings) as client:
        painted = client.txt2img("a painter", seed=1).result(timeout_s=WAIT_S)
        assert (painted.attempt, painted.timings.inference_s > 2) == (1, True)
        assert client.txt2img("a snail", seed=1).wait(WAIT_S) == "failed"
