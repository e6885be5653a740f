"""Redis and the object store away, slow or failing; workers replaced under load."""

import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from crossmodal.jobs.record import JobState
from producer import BrokerUnavailable, Client, JobHandle, StorageUnavailable
from tests.chaos.proxy import Behaviour
from tests.chaos.storm import world_of
from tests.chaos.submitters import picture
from tests.chaos.world import World
from tests.e2e.test_time_limits import FREED_S
from tests.waiting import until
from tests.workers import FAKE_WORKER, suspended

PROMPT = "a large red circle on a white background"
WAIT_S = 120
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_of(6.0, 4, tmp_path_factory.mktemp("world"), FAKE_WORKER) as world:
        yield world


@pytest.fixture
def client(world: World) -> Iterator[Client]:
    hasty = world.settings().model_copy(update={"connect_timeout_s": 2.0, "storage_timeout_s": 3.0})
    with Client(hasty) as client:
        yield client


def submitted(client: Client, count: int) -> list[JobHandle]:
    return [client.txt2img(PROMPT, seed=i) for i in range(count)]


def all_succeed(jobs: list[JobHandle]) -> None:
    until(lambda: all(job.status().state.is_terminal for job in jobs), WAIT_S, "the last job")
    assert {job.status().state for job in jobs} == {JobState.SUCCEEDED}


def test_while_redis_hangs_a_producer_is_told_so_within_its_timeout(
    world: World, client: Client
) -> None:
    jobs = submitted(client, 40)
    with suspended(psutil.Process(world.valkey.pid)):
        for call in (lambda: client.txt2img(PROMPT), jobs[0].status, jobs[0].cancel):
            begun = time.monotonic()
            with pytest.raises(BrokerUnavailable) as caught:
                call()
            assert caught.value.retryable
            assert time.monotonic() - begun < 2 * client.settings.connect_timeout_s
    all_succeed([*jobs, *submitted(client, 4)])


def test_redis_is_restarted_twice_under_load(world: World, client: Client) -> None:
    jobs: list[JobHandle] = []
    for number in (signal.SIGTERM, signal.SIGKILL):
        more = submitted(client, 60)
        assert more[0].wait(timeout_s=WAIT_S) is JobState.SUCCEEDED
        world.restart_valkey(number)
        jobs += more
    all_succeed([*jobs, *submitted(client, 4)])


def test_connections_that_are_cut_lose_nothing(world: World, client: Client) -> None:
    jobs = submitted(client, 60)
    for i in (10, 30):
        assert jobs[i].wait(timeout_s=WAIT_S) is JobState.SUCCEEDED
        world.redis_proxy.reset()
    all_succeed(jobs)


@pytest.mark.parametrize(
    "behaviour", [Behaviour(refuses=True), Behaviour(delay_s=0.3), Behaviour(fails_every_put=3)]
)
def test_jobs_outlast_a_sick_store(world: World, client: Client, behaviour: Behaviour) -> None:
    world.store_proxy.behaviour = behaviour
    world.store_proxy.reset()
    try:
        jobs = submitted(client, 8)
        until(lambda: any(j.status().state is not JobState.QUEUED for j in jobs), WAIT_S)
        if behaviour.refuses:
            with pytest.raises(StorageUnavailable):
                client.img2txt(picture(1))
    finally:
        world.store_proxy.behaviour = Behaviour()
    all_succeed(jobs)


def test_a_canceled_job_frees_its_slot_while_the_store_is_slow(
    world: World, client: Client
) -> None:
    blob = client.upload(picture(1))
    world.store_proxy.behaviour = Behaviour(delay_s=10.0)
    try:
        job = client.img2txt(blob)
        until(lambda: job.status().state is JobState.RUNNING, WAIT_S)
        assert job.cancel() is JobState.CANCELED
        given_up = f"job {job.id}: attempt 1 is superseded".encode()
        logs = list(world.folder.glob("worker-*.log"))
        until(lambda: any(given_up in log.read_bytes() for log in logs), FREED_S)
    finally:
        world.store_proxy.behaviour = Behaviour()
        world.store_proxy.reset()
    all_succeed(submitted(client, 4))


def test_two_workers_are_replaced_under_load_and_no_client_notices(
    world: World, client: Client
) -> None:
    jobs = submitted(client, 60)
    for worker in world.workers:
        jobs += submitted(client, 30)
        assert worker.child is not None
        worker.child.send(signal.SIGTERM)
        assert worker.child.wait(WAIT_S)
        assert worker.child.returncode == 0
        jobs += submitted(client, 30)
        worker.keep_up()
        until(worker.ready.exists, WAIT_S)
    all_succeed(jobs)
    assert {client.record(job.id).attempt for job in jobs} == {1}
