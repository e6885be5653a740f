"""Real servers for the tests: one Valkey and one stack a session, on free loopback ports."""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from crossmodal.jobs.acl import Role
from crossmodal.local.stack import Stack
from crossmodal.settings import Settings, load_settings
from producer import Client
from tests.servers import Server, start_server, user_url
from tests.workers import celery_worker, host_of

LONGEST_FIRST = (
    "gpu",
    "chaos",
    "e2e",
    "clients",
    "failures",
    "attacks",
    "fuzz",
    "smoke",
    "integration",
    "unit",
)
SLOW = ("chaos", "e2e", "clients", "failures", "attacks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no process ends long after the other."""
    for item in items:
        if _folder(item) in SLOW and not item.get_closest_marker("quick"):
            item.add_marker("slow")
        if _folder(item) == "gpu":
            item.add_marker("gpu")
    items.sort(key=lambda item: LONGEST_FIRST.index(_folder(item)))


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).parts[0]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Redis server that this session started; fails at the end if it had to deny anything."""
    server = start_server(tmp_path_factory.mktemp("valkey"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def valkey_server(redis_server: Server) -> str:
    """The URL of that server, for a user who may do anything."""
    return redis_server.admin_url


@pytest.fixture
def settings(redis_server: Server, tmp_path: Path) -> Settings:
    """Settings of a ledger and a store that no other test uses, and of a user with no more rights
    than a worker has."""
    prefix = f"test-{uuid.uuid4().hex[:12]}"
    redis_server.add_users(prefix)
    return load_settings(
        broker_url=redis_server.url(Role.WORKER, prefix),
        result_backend="",
        storage_url=(tmp_path / "storage").as_uri(),
        key_prefix=prefix,
    )


@pytest.fixture
def admin(redis_server: Server) -> Iterator[Any]:
    """A connection to the server of `settings` that may do anything."""
    with redis_server.admin() as redis:
        yield redis


IN_HAND = 8  # jobs of the worker of a `RunningStack`


@dataclass(frozen=True)
class RunningStack:
    """A queue with a worker on it, and the environment that leads to them."""

    env: dict[str, str]
    settings: Settings
    log: Path
    supervisor: psutil.Process
    server: Server

    def processes(self) -> set[int]:
        """Process ids of the model host, what it has forked, and the Celery worker."""
        host = self.model_host
        return {process.pid for process in (host, *host.children(), self.celery)}

    @property
    def model_host(self) -> psutil.Process:
        """The model host itself, without what it has forked."""
        return host_of(self.supervisor)

    @property
    def celery(self) -> psutil.Process:
        """The Celery worker."""
        return celery_worker(self.supervisor)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """Valkey, a model host and a Celery worker that has eight jobs in hand, on the CPU."""
    folder = tmp_path_factory.mktemp("stack")
    server = start_server(folder / "valkey")
    env = stack_environment(server.port, folder)
    log = folder / "processes.log"
    with log.open("wb") as output, Stack(env, output) as running:
        options = ["--devices", "cpu", "--concurrency", str(IN_HAND)]
        worker = running.start_worker(options, 60, folder / "ready")
        running.wait_ready(folder / "ready")
        yield RunningStack(env, settings_of(env), log, psutil.Process(worker.pid), server)
    server.stop()


@pytest.fixture
def client(stack: RunningStack) -> Iterator[Client]:
    """A client that may submit and read, and not what workers may."""
    url = SecretStr(stack.server.url(Role.PRODUCER))
    with Client(stack.settings.model_copy(update={"broker_url": url})) as client:
        yield client


def stack_environment(port: int, folder: Path) -> dict[str, str]:
    """What leads to the server that `start_server` started at a port, and to a store."""
    return {
        "CELERY_BROKER_URL": user_url(port),
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


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path is short, for unix sockets: pytest's own may be too long for one."""
    with TemporaryDirectory(prefix="cm-") as name:
        yield Path(name)


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
