"""A Celery worker that is killed repeatedly: what it had in hand runs again without a wait."""

from pathlib import Path

from crossmodal.jobs.record import JobState
from crossmodal.processes import Child
from producer import Client, JobHandle
from tests.conftest import settings_of, stack_environment
from tests.servers import start_server
from tests.waiting import until
from tests.workers import (
    celery_worker,
    celery_workers,
    host_of,
    hosts_of,
    running_worker,
    suspended,
)

LEASE_S = 300.0  # longer than the whole test
WAIT_S = 90.0
KILLS = 5  # three in a row are no crash loop


def kill_with_jobs(worker: Child, client: Client) -> list[JobHandle]:
    """Kill the Celery worker while it runs four jobs."""
    until(lambda: len(celery_workers(worker)) == len(hosts_of(worker)) == 1, WAIT_S)
    with suspended(host_of(worker)):
        jobs = [client.txt2img("a red circle", seed=i) for i in range(4)]
        until(lambda: {job.status().state for job in jobs} == {JobState.RUNNING}, WAIT_S)
        celery_worker(worker).kill()
    return jobs


def test_what_a_killed_worker_had_in_hand_does_not_wait_for_its_lease(tmp_path: Path) -> None:
    server = start_server(tmp_path / "valkey")
    env = stack_environment(server.port, tmp_path) | {"CROSSMODAL_LEASE_S": f"{LEASE_S:g}"}
    with running_worker(env, tmp_path / "worker", 4) as worker, Client(settings_of(env)) as client:
        for _ in range(KILLS):
            jobs = kill_with_jobs(worker, client)
            assert [job.result(timeout_s=WAIT_S).attempt for job in jobs] == [2] * 4
    server.stop()
