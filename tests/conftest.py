"""Real servers for the tests: one Valkey and one stack a session, on free loopback ports."""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from crossmodal.local.stack import Stack
from crossmodal.local.valkey import free_port, start_valkey, valkey_url
from crossmodal.settings import Settings, load_settings
from producer import Client


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Valkey server that this session started."""
    port = free_port()
    server = start_valkey(tmp_path_factory.mktemp("valkey"), port, password="test-secret")
    yield valkey_url(port, "test-secret")
    server.stop(10)


@pytest.fixture
def settings(valkey_server: str, tmp_path: Path) -> Settings:
    """Settings of a ledger and a store that no other test uses."""
    return load_settings(
        broker_url=valkey_server,
        result_backend="",
        storage_url=(tmp_path / "storage").as_uri(),
        key_prefix=f"test-{uuid.uuid4().hex[:12]}",
    )


@dataclass(frozen=True)
class RunningStack:
    """A queue with a worker on it, and the environment that leads to them."""

    env: dict[str, str]
    settings: Settings
    log: Path
    supervisor: psutil.Process

    def processes(self) -> set[int]:
        """Process ids of the model host, the Celery worker and its task children."""
        return {child.pid for child in self.supervisor.children(recursive=True)}

    def task_children(self) -> list[psutil.Process]:
        """The processes that Celery forked to run tasks in."""
        workers = [c for c in self.supervisor.children() if "celery" in c.cmdline()]
        return [child for worker in workers for child in worker.children()]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """Valkey, a model host and a Celery worker with eight processes, on the CPU."""
    folder = tmp_path_factory.mktemp("stack")
    port = free_port()
    env = stack_environment(port, folder)
    log = folder / "processes.log"
    with log.open("wb") as output, Stack(env, output) as running:
        running.add(start_valkey(folder / "valkey", port), 10)
        options = ["--devices", "cpu", "--concurrency", "8"]
        worker = running.start_worker(options, 60, folder / "ready")
        running.wait_ready(folder / "ready")
        yield RunningStack(env, settings_of(env), log, psutil.Process(worker.pid))


@pytest.fixture
def client(stack: RunningStack) -> Iterator[Client]:
    with Client(stack.settings) as client:
        yield client


def stack_environment(port: int, folder: Path) -> dict[str, str]:
    return {
        "CELERY_BROKER_URL": valkey_url(port),
        "CELERY_RESULT_BACKEND": "",
        "CROSSMODAL_STORAGE_URL": (folder / "storage").as_uri(),
    }


def settings_of(env: dict[str, str]) -> Settings:
    return load_settings(
        broker_url=env["CELERY_BROKER_URL"],
        result_backend="",
        storage_url=env["CROSSMODAL_STORAGE_URL"],
    )


def need(available: bool, what: str) -> None:
    """Skip a test on a laptop that lacks `what`; fail it in CI, which must have it."""
    if available:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have {what}")
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of an S3 server (moto's), which speaks the real protocol."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_url(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket, with the environment that leads to it."""
    from urllib.request import Request, urlopen

    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT": s3_server,
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid.uuid4().hex[:8]}"
    urlopen(Request(f"{s3_server}/{bucket}", method="PUT")).close()
    return f"s3://{bucket}/prefix"
