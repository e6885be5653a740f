"""Redis killed, paused and cut off, each under three thousand jobs: all of them succeed."""

import signal
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from crossmodal.jobs.record import JobState
from crossmodal.kinds.task import Task
from producer import BrokerUnavailable, Client, JobHandle
from tests.chaos.storm import world_of
from tests.chaos.world import World
from tests.waiting import until
from tests.workers import FAKE_WORKER, suspended

JOBS = 3_000
PROMPT = "a large red circle on a white background"
PAUSE_S = 8.0
WAIT_S = 240.0
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_of(6.0, 24, tmp_path_factory.mktemp("world"), FAKE_WORKER) as world:
        yield world


@pytest.fixture
def client(world: World) -> Iterator[Client]:
    with Client(world.settings()) as client:
        yield client


def killed(world: World) -> None:
    world.restart_valkey(signal.SIGKILL)


def paused(world: World) -> None:
    with suspended(psutil.Process(world.valkey.pid)):
        time.sleep(PAUSE_S)  # the outage is a length of time


def cut_off(world: World) -> None:
    world.redis_proxy.reset()


@pytest.mark.parametrize("outage", [killed, paused, cut_off])
def test_three_thousand_jobs_outlast_an_outage_of_redis(
    world: World, client: Client, outage: Callable[[World], None]
) -> None:
    jobs = [client.txt2img(PROMPT, seed=i) for i in range(JOBS)]
    for part in (1, 2):
        until(lambda p=part: left(client) <= JOBS - p * JOBS // 3, WAIT_S)  # type: ignore[misc]
        outage(world)
    all_succeed(client, jobs)


def left(client: Client) -> int:
    """Return how many jobs have not ended; all, while Redis does not answer."""
    try:
        queue = client.queue(Task("txt2img"))
    except BrokerUnavailable:
        return JOBS
    return queue.depth + queue.running


def all_succeed(client: Client, jobs: list[JobHandle]) -> None:
    until(lambda: left(client) == 0, WAIT_S, "the last job")
    states = [job.status().state for job in jobs]
    assert states == [JobState.SUCCEEDED] * len(jobs)
