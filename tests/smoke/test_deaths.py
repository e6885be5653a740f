"""Each kind of death once: a model host, a worker, Redis, a poisonous prompt, a machine, a drain.

Real processes with fake models. What else can die, and under which load, is in tests/e2e.
"""

import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from crossmodal.jobs.message import message_of
from crossmodal.jobs.params import parse_params
from crossmodal.jobs.record import JobState
from crossmodal.processes import Child
from producer import Client, JobFailed, JobHandle
from tests.conftest import settings_of, stack_environment
from tests.servers import Server, start_server
from tests.waiting import until
from tests.workers import (
    alive,
    celery_worker,
    celery_workers,
    host_of,
    hosts_of,
    running_worker,
    suspended,
    tree_of,
)

LEASE_S = 6.0  # a busy machine keeps a worker from renewing them for seconds
SWEEP_S = 0.5
WAIT_S = 90.0
PROMPT = "a large red circle on a white background"


@dataclass
class Place:
    """A queue, the way to it, and a client of it."""

    folder: Path
    server: Server
    env: dict[str, str]
    client: Client

    def submit(self, count: int, prompt: str = PROMPT) -> list[JobHandle]:
        return [self.client.txt2img(prompt, seed=i) for i in range(count)]

    def send_again(self, handle: JobHandle) -> None:
        """Put a second message of a job into its queue."""
        job = self.client.record(handle.id)
        message = message_of(job.id, parse_params(job.task, job.params))
        self.client.redis.lpush(job.queue, message)

    def jobs_of(self, worker: Child, jobs: list[JobHandle]) -> list[JobHandle]:
        """Those which a worker has in hand."""
        its_mark = f".{worker.pid}@"  # in the names of its Celery workers
        return [job for job in jobs if its_mark in (self.client.record(job.id).worker or "")]

    def restart_server(self) -> None:
        self.server.child.send(signal.SIGKILL)
        assert self.server.child.wait(30)
        self.server = start_server(self.folder / "valkey", self.server.port, is_safe=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("deaths")
    server = start_server(folder / "valkey", is_safe=True)
    env = stack_environment(server.port, folder) | {
        "CROSSMODAL_LEASE_S": str(LEASE_S),
        "CROSSMODAL_SWEEP_S": str(SWEEP_S),
    }
    with Client(settings_of(env)) as client:
        place = Place(folder, server, env, client)
        yield place
    place.server.stop()


@pytest.fixture(scope="module")
def shared_worker(place: Place) -> Iterator[Child]:
    with running_worker(place.env, place.folder / "worker", 8) as worker:
        yield worker


@pytest.fixture
def worker(shared_worker: Child) -> Child:
    """A worker that has everything again which an earlier test has killed."""

    def is_whole() -> bool:
        return len(hosts_of(shared_worker)) == len(celery_workers(shared_worker)) == 1

    until(is_whole, WAIT_S, "its processes")
    return shared_worker


def states(jobs: list[JobHandle]) -> list[JobState]:
    return [job.status().state for job in jobs]


def wait_for(state: JobState, jobs: list[JobHandle]) -> None:
    until(lambda: set(states(jobs)) == {state}, WAIT_S, f"all {state}")


def attempts(jobs: list[JobHandle]) -> list[int]:
    """At which attempt each has succeeded."""
    return [job.result(timeout_s=WAIT_S).attempt for job in jobs]


def test_a_killed_model_host_is_started_again_and_costs_no_job(place: Place, worker: Child) -> None:
    host = host_of(worker)
    with suspended(host):
        jobs = place.submit(4)
        wait_for(JobState.RUNNING, jobs)
        host.kill()
    until(lambda: not alive(host), WAIT_S)
    assert len(attempts(jobs)) == 4
    assert host_of(worker).pid != host.pid


def test_a_killed_celery_worker_is_started_again_and_costs_no_job(
    place: Place, worker: Child
) -> None:
    with suspended(host_of(worker)):
        jobs = place.submit(12)
        until(lambda: any(j.status().state is JobState.RUNNING for j in jobs), WAIT_S)
        celery_worker(worker).kill()
    assert max(attempts(jobs)) == 2


def test_a_poisonous_prompt_fails_alone(place: Place, worker: Child) -> None:
    with suspended(host_of(worker)):  # so that it shares its first batch
        mates = place.submit(7)
        [poison] = place.submit(1, f"{PROMPT} poison")
        wait_for(JobState.RUNNING, [*mates, poison])
    with pytest.raises(JobFailed) as caught:
        poison.result(timeout_s=WAIT_S)
    assert caught.value.code == "model_host_crashed"
    assert len(attempts(mates)) == 7


def test_redis_is_killed_and_nothing_is_lost(place: Place, worker: Child) -> None:
    with suspended(host_of(worker)):
        jobs = place.submit(20)
        wait_for(JobState.RUNNING, jobs[:8])
        place.restart_server()
    assert len(attempts([*jobs, *place.submit(2)])) == 22


def test_a_job_that_outlasts_its_lease_runs_once_also_where_it_is_sent_twice(
    place: Place, worker: Child
) -> None:
    with running_worker(place.env, place.folder / "rival", 2) as rival:
        with suspended(host_of(worker)), suspended(host_of(rival)):
            jobs = place.submit(2)
            wait_for(JobState.RUNNING, jobs)
            place.send_again(jobs[0])
            # What must not happen is waited for, a second longer than it would take.
            with pytest.raises(AssertionError):
                until(lambda: any(j.status().attempt > 1 for j in jobs), LEASE_S + SWEEP_S + 1)
            assert states(jobs) == [JobState.RUNNING] * 2
        assert attempts(jobs) == [1, 1]
        logs = [(place.folder / name / "log").read_text() for name in ("worker", "rival")]
    given_out_again = f"job {jobs[1].id} is not started"  # whose message was sent once
    assert not any(given_out_again in log for log in logs)


def test_jobs_of_a_dead_machine_are_run_by_another(place: Place, worker: Child) -> None:
    with running_worker(place.env, place.folder / "doomed", 2) as doomed:
        with suspended(host_of(worker)), suspended(host_of(doomed)):
            jobs = place.submit(10)  # as many as both may have in hand
            wait_for(JobState.RUNNING, jobs)
            lost = place.jobs_of(doomed, jobs)
            assert len(lost) == 2
            for process in tree_of(doomed):  # all at once
                with suppress(psutil.NoSuchProcess):  # it has died with its parent
                    process.kill()
        assert attempts(lost) == [2, 2]
        attempts(jobs)  # all succeed


def test_a_worker_that_is_told_to_stop_finishes_what_runs(place: Place, worker: Child) -> None:
    log = place.folder / "leaver" / "log"
    with running_worker(place.env, place.folder / "leaver", 2) as leaver:
        tree = tree_of(leaver)
        with suspended(host_of(worker)):  # until the end: it has all that it may have in hand
            with suspended(host_of(leaver)):
                jobs = place.submit(14)  # four more than both may have
                until(lambda: states(jobs).count(JobState.RUNNING) == 10, WAIT_S)
                its_own = place.jobs_of(leaver, jobs)
                assert len(its_own) == 2
                leaver.send(signal.SIGTERM)
                until(lambda: b"draining" in log.read_bytes(), WAIT_S)
            assert leaver.wait(WAIT_S)
            assert leaver.returncode == 0
            assert not [process for process in tree if alive(process)]
            assert states(its_own) == [JobState.SUCCEEDED] * 2
            assert states(jobs).count(JobState.SUCCEEDED) == 2  # it took no more of them
        attempts(jobs)  # all succeed
