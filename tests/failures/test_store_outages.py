"""The object store is away or full: a worker reports it, takes nothing, and no attempt is lost."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crossmodal.jobs.acl import Role
from crossmodal.settings import Settings, load_settings
from producer import Client, JobHandle
from tests.chaos.proxy import Behaviour, Proxy
from tests.servers import start_server
from tests.waiting import until
from tests.workers import environment, running_worker

WAIT_S = 90
JOBS = 12
pytestmark = pytest.mark.quick


class Stack:
    """A worker of fakes that has one attempt for a job, and a client."""

    def __init__(self, client: Client, env: dict[str, str], folder: Path) -> None:
        self.client = client
        self.env = env
        self.folder = folder

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    @property
    def log(self) -> str:
        return (self.folder / "worker" / "log").read_text()

    @property
    def waits_for(self) -> str:
        """What the worker has announced that it waits for."""
        [worker] = self.client.workers()
        return worker.waits_for

    def health(self) -> dict[str, Any]:
        """Return what a health probe reports of the one worker."""
        argv = [sys.executable, "-m", "crossmodal.cli", "health", "--json"]
        asked = subprocess.run(argv, env=os.environ | self.env, capture_output=True, check=False)
        [worker] = json.loads(asked.stdout)
        return dict(worker) | {"status": asked.returncode}

    def attempts(self, jobs: list[JobHandle]) -> set[int]:
        """Return the numbers of attempts that the jobs have used."""
        records = [self.client.record(job.id) for job in jobs]
        return {one.attempt for one in records}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("outages")
    server = start_server(folder / "valkey")
    settings = load_settings(
        broker_url=server.url(Role.WORKER),
        result_backend="",
        storage_url=(folder / "storage").as_uri(),
    )
    env = environment(settings) | {
        "CROSSMODAL_RUN_DIR": str(folder / "run"),
        "CROSSMODAL_LOG_LEVEL": "INFO",
        "CROSSMODAL_MAX_ATTEMPTS": "1",
    }
    with running_worker(env, folder / "worker", 4), Client(settings) as client:
        yield Stack(client, env, folder)
    server.child.stop(10)


@pytest.fixture
def away(stack: Stack) -> Iterator[Path]:
    """Put a file in the place of the store's folder; yield it."""
    kept = stack.folder / "kept"
    stack.storage.mkdir(exist_ok=True)
    stack.storage.rename(kept)
    stack.storage.write_bytes(b"")
    yield stack.storage
    if stack.storage.is_file():
        stack.storage.unlink()
        kept.rename(stack.storage)


def end(away: Path) -> None:
    away.unlink()
    (away.parent / "kept").rename(away)


def test_an_outage_of_the_store_uses_up_no_attempt_and_the_worker_takes_nothing(
    stack: Stack, away: Path
) -> None:
    jobs = [stack.client.txt2img("a circle", seed=i) for i in range(JOBS)]
    until(lambda: stack.waits_for != "", WAIT_S, "the announcement")
    tried = sum(stack.client.record(job.id).attempt for job in jobs)
    assert tried < JOBS
    assert "no jobs are taken while the object store is unavailable" in stack.log
    until(lambda: not stack.health()["ready"], WAIT_S)
    health = stack.health()
    assert health["live"]
    assert str(stack.storage) in health["waits_for"]
    assert health["status"] == 1
    end(away)
    for job in jobs:
        job.result(timeout_s=WAIT_S)
    assert max(stack.attempts(jobs)) <= 2  # one that failed, one that did not
    until(lambda: stack.waits_for == "", WAIT_S)
    until(lambda: bool(stack.health()["ready"]), WAIT_S)
    assert stack.log.count("jobs are taken again") == 1


def test_a_job_that_fails_alone_has_the_worker_take_others(stack: Stack) -> None:
    """Its result's folder is a file, while the store is well."""
    job = stack.client.txt2img("a snail")
    (stack.storage / "results").mkdir(exist_ok=True)
    in_place = stack.storage / "results" / job.id
    in_place.write_bytes(b"")
    until(lambda: stack.client.record(job.id).failure is not None, WAIT_S, "the failure")
    others = [stack.client.txt2img("a circle", seed=i) for i in range(JOBS)]
    for other in others:
        other.result(timeout_s=WAIT_S)
    in_place.unlink()
    job.result(timeout_s=WAIT_S)
    assert stack.attempts(others) == {1}


def test_s3_that_refuses_connections_for_a_while_costs_no_job_an_attempt(
    s3_url: str, settings: Settings, tmp_path: Path
) -> None:
    port = int(os.environ["AWS_ENDPOINT"].rpartition(":")[2])
    proxy = Proxy(port)
    own = settings.model_copy(update={"storage_url": s3_url})
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
    env = (
        environment(own)
        | {name: os.environ[name] for name in names}
        | {
            "AWS_ENDPOINT": f"http://127.0.0.1:{proxy.port}",
            "CROSSMODAL_STORAGE_TIMEOUT_S": "2",
            "CROSSMODAL_RUN_DIR": str(tmp_path / "run"),
            "CROSSMODAL_LOG_LEVEL": "INFO",
            "CROSSMODAL_MAX_ATTEMPTS": "1",
        }
    )
    with running_worker(env, tmp_path / "worker", 4), Client(own) as client:
        client.txt2img("a circle").result(timeout_s=WAIT_S)
        proxy.behaviour = Behaviour(refuses=True)
        proxy.reset()
        jobs = [client.txt2img("a circle", seed=i) for i in range(JOBS)]
        until(lambda: any(worker.waits_for for worker in client.workers()), WAIT_S)
        proxy.behaviour = Behaviour()
        for job in jobs:
            job.result(timeout_s=WAIT_S)
    proxy.close()
