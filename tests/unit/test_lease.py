"""What a worker says of itself while it consumes, and when it drains."""

from collections.abc import Iterator

import pytest
from celery.worker import state

from crossmodal.jobs.runners import Runner
from crossmodal.jobs.workers import Workers
from crossmodal.settings import Settings
from worker.lease import Keeper


@pytest.fixture
def keeper(settings: Settings) -> Iterator[Keeper]:
    keeper = Keeper(settings, "cpu.1@here", ["txt2img"])
    yield keeper
    keeper._redis.close()


def known(settings: Settings) -> list[str]:
    with Runner(settings) as runner:
        return [worker.name for worker in runner.run(Workers(settings).recent())]


def test_a_worker_that_drains_is_no_longer_counted(
    keeper: Keeper, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper._announce()
    assert known(settings) == ["cpu.1@here"]
    monkeypatch.setattr(state, "should_stop", 0)
    for _ in range(2):
        keeper._announce()
        assert known(settings) == []
