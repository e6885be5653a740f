"""What Flower is told of a job's end: events of a real worker, as Celery's own monitor reads them.

The worker has no model host: a job that it runs waits for one, until it is given up or canceled.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crossmodal.jobs.connection import connect
from crossmodal.jobs.ledger import Attempt
from crossmodal.jobs.names import job_key, messages_key
from crossmodal.jobs.record import JobState
from crossmodal.kinds.task import Task
from crossmodal.local.stack import Stack
from crossmodal.settings import Settings
from producer import Client
from tests.celery_app import celery_app
from tests.ledgers import Ledger
from tests.monitoring import monitoring
from tests.unit.test_ledger import result_of
from tests.waiting import until

WAIT_S = 60
WORKER = [
    sys.executable,
    "-m",
    "celery",
    "-A",
    "worker.app",
    "worker",
    "--task-events",
    "--concurrency",
    "2",
    "--without-gossip",
    "--without-mingle",
    "--loglevel",
    "INFO",
]


@contextmanager
def worker_without_host(settings: Settings, folder: Path, **more: str) -> Iterator[None]:
    env = {
        "CELERY_BROKER_URL": settings.broker_url.get_secret_value(),
        "CROSSMODAL_KEY_PREFIX": settings.key_prefix,
        "CROSSMODAL_STORAGE_URL": settings.storage_url,
        "CROSSMODAL_HOST_SOCKET": str(folder / "none.sock"),
        "CROSSMODAL_MAX_ATTEMPTS": "1",
        **more,
    }
    with (folder / "log").open("wb") as log, Stack(env, log) as stack:
        stack.start("celery", WORKER, 20)
        yield


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


def test_jobs_that_ended_before_a_worker_took_them_end_so_in_monitors(
    settings: Settings, client: Client, tmp_path: Path
) -> None:
    ledger = Ledger(settings.model_copy(update={"max_attempts": 1}))
    canceled, succeeded, lost, deleted = (client.txt2img("a circle").id for _ in range(4))
    expired = client.txt2img("a circle", expires_in_s=0).id
    client.cancel(canceled)
    for job_id in (succeeded, lost):
        attempt = ledger.start(job_id, "somebody")
        assert isinstance(attempt, Attempt)
        if job_id == succeeded:
            ledger.succeed(attempt, result_of(attempt))
    ledger.abandon("somebody", [lost])
    with connect(settings) as redis:
        redis.delete(job_key(settings.key_prefix, deleted))
    ends = {
        canceled: "REVOKED",
        expired: "REVOKED",
        deleted: "REVOKED",
        succeeded: "SUCCESS",
        lost: "FAILURE",
    }
    with monitoring(settings) as monitor, worker_without_host(settings, tmp_path):
        until(lambda: {j: monitor.state_of(j) for j in ends} == ends, WAIT_S, "the events")
        assert {j: monitor.last_of(j).get("expired") for j in (canceled, expired)} == {
            canceled: False,
            expired: True,
        }
        with connect(settings) as redis:
            assert redis.llen(messages_key(settings.key_prefix, str(Task("txt2img")))) == 0
    ledger.close()


def test_jobs_that_a_worker_runs_end_in_monitors_as_they_do(
    settings: Settings, client: Client, tmp_path: Path
) -> None:
    with monitoring(settings) as monitor, worker_without_host(settings, tmp_path):
        with celery_app(settings) as app:
            wrong = app.send_task("crossmodal.txt2img", kwargs={"prompt": " "}).id
        until(lambda: monitor.state_of(wrong) == "FAILURE", WAIT_S, "the failure")
        canceled, overtaken = client.txt2img("a circle"), client.txt2img("a circle")
        for job in (canceled, overtaken):
            until(lambda j=job: monitor.state_of(j.id) == "STARTED", WAIT_S)  # type: ignore[misc]
            until(lambda j=job: j.status().state is JobState.RUNNING, WAIT_S)  # type: ignore[misc]
        take_over(settings, overtaken.id)
        canceled.cancel()
        until(lambda: monitor.state_of(canceled.id) == "REVOKED", WAIT_S, "the cancelation")
        assert monitor.last_of(canceled.id)["expired"] is False
        log = tmp_path / "log"
        until(lambda: b"attempt 1 is superseded" in log.read_bytes(), WAIT_S)
        until(lambda: f"{overtaken.id}] ignored" in log.read_text(), WAIT_S, "Celery's word for it")
        assert monitor.state_of(overtaken.id) == "STARTED"  # for the other attempt to end


def take_over(settings: Settings, job_id: str) -> None:
    """Start another attempt, as if the worker of the first one were dead."""
    ledger = Ledger(settings)
    ledger.abandon(ledger.get(job_id).worker or "", [job_id])
    assert isinstance(ledger.start(job_id, "somebody"), Attempt)
    ledger.close()


def test_a_job_that_is_tried_again_is_retried_and_then_ends(
    settings: Settings, client: Client, tmp_path: Path
) -> None:
    env = {"CROSSMODAL_HOST_WAIT_S": "0"}
    with monitoring(settings) as monitor, worker_without_host(settings, tmp_path, **env):
        job = client.txt2img("a circle")
        until(lambda: "retried" in monitor.story_of(job.id), WAIT_S, "the retry")
        job.cancel()
        until(lambda: monitor.state_of(job.id) == "REVOKED", WAIT_S, "the cancelation")
