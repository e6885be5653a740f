"""Real servers for the tests: one Valkey and one stack per session, on free loopback ports."""

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
    """Mark tests by folder, and start with the slowest, so that processes end about together."""
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
    """A Redis server for this session; fails at the end if it denied a user anything."""
    server = start_server(tmp_path_factory.mktemp("valkey"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def valkey_server(redis_server: Server) -> str:
    """The URL of that server for the admin user."""
    return redis_server.admin_url


@pytest.fixture
def settings(redis_server: Server, tmp_path: Path) -> Settings:
    """Settings with a private ledger and object store, and a user with only a worker's rights."""
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
    """An admin connection to the server of `settings`."""
    with redis_server.admin() as redis:
        yield redis


IN_HAND = 8  # jobs in hand of a `RunningStack`'s worker


@dataclass(frozen=True)
class RunningStack:
    """A queue with a worker, and the environment to reach them."""

    env: dict[str, str]
    settings: Settings
    log: Path
    supervisor: psutil.Process
    server: Server

    def processes(self) -> set[int]:
        """Return the process ids of the model host, its forks and the Celery worker."""
        host = self.model_host
        return {process.pid for process in (host, *host.children(), self.celery)}

    @property
    def model_host(self) -> psutil.Process:
        """The model host itself, without its forks."""
        return host_of(self.supervisor)

    @property
    def celery(self) -> psutil.Process:
        """The Celery worker."""
        return celery_worker(self.supervisor)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """Valkey, and a worker on the CPU with eight jobs in hand."""
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
    """A client with a producer's rights: it may submit and read."""
    url = SecretStr(stack.server.url(Role.PRODUCER))
    with Client(stack.settings.model_copy(update={"broker_url": url})) as client:
        yield client


def stack_environment(port: int, folder: Path) -> dict[str, str]:
    """Return the environment for a server that `start_server` started, and an object store."""
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
    """Skip a test if `what` is not available; fail it in CI, which must have it."""
    if available:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have {what}")
    pytest.skip(f"needs {what}")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder with a short path, for Unix sockets: pytest's own may be too long."""
    with TemporaryDirectory(prefix="cm-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of moto's S3 server, which speaks the real protocol."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_url(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket, with the environment set to reach it."""
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
