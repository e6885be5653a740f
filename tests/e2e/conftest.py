"""A queue and a store that one test has for itself; it starts the workers that it needs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from producer import Client
from tests.browser import running_browser
from tests.conftest import settings_of, stack_environment
from tests.servers import Server, start_server

LEASE_S = 3.0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A queue that only this test uses; its users may do no more than they need."""
    server = start_server(tmp_path / "valkey")
    yield server
    server.stop()


@pytest.fixture
def env(server: Server, tmp_path: Path) -> dict[str, str]:
    """The environment of that queue, and of a store."""
    return stack_environment(server.port, tmp_path)


@pytest.fixture
def short(env: dict[str, str]) -> dict[str, str]:
    """The same environment with leases that a test can wait for."""
    return env | {"CROSSMODAL_LEASE_S": str(LEASE_S), "CROSSMODAL_SWEEP_S": "0.5"}


@pytest.fixture
def client(env: dict[str, str]) -> Iterator[Client]:
    with Client(settings_of(env)) as client:
        yield client
