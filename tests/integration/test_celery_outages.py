"""A worker of toys and a Redis of its own that dies, refuses, or has no memory: nothing is lost."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from kombu.exceptions import OperationalError
from pydantic import SecretStr

from crossmodal.jobs.acl import Role
from crossmodal.jobs.names import messages_key
from crossmodal.kinds.task import Task
from crossmodal.local.valkey import free_port
from crossmodal.settings import Settings, load_settings
from tests.celery_app import celery_app
from tests.servers import Server, start_server
from tests.toys import ToyWorker, toy_worker
from tests.waiting import until
from tests.workers import suspended
from worker.celery.broker import MAX_WAIT_S

WAIT_S = 60
SOON_S = 60
MANY = 3_000
TRIES = 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A Redis that the test may do anything to, and that keeps what it has answered."""
    server = start_server(tmp_path / "valkey", is_safe=True)
    yield server
    server.child.stop(10)


@pytest.fixture
def own(server: Server, tmp_path: Path) -> Settings:
    return load_settings(
        broker_url=server.url(Role.WORKER),
        result_backend="",
        storage_url=(tmp_path / "storage").as_uri(),
    )


@pytest.fixture
def worker(server: Server, own: Settings, tmp_path: Path) -> Iterator[ToyWorker]:
    with server.admin() as redis, toy_worker(own, redis, tmp_path / "worker", 24) as worker:
        yield worker


@pytest.mark.slow
def test_nothing_is_lost_when_redis_is_killed_twice_under_load(
    server: Server, worker: ToyWorker, tmp_path: Path
) -> None:
    with suspended(psutil.Process(worker.process.pid)):
        # The queue is never empty, or a message without a record may be lost on its way.
        toys = [worker.send(sleep_s=0.04) for _ in range(MANY)]
    with ExitStack() as servers:
        for share in (0.2, 0.5):
            until(lambda share=share: len(worker.made) > share * MANY, WAIT_S)  # type: ignore[misc]
            server.child.kill()
            before = len(worker.made)
            server = start_server(tmp_path / "valkey", server.port, is_safe=True)
            servers.callback(server.child.stop, 10)
            until(lambda before=before: len(worker.made) >= min(before + 48, MANY), SOON_S)  # type: ignore[misc]
        until(lambda: len(worker.made) == MANY, WAIT_S, "the last of them")
        until(lambda: worker.in_hand == 0, WAIT_S, "the acknowledgement of all")
    assert set(worker.made) == set(toys)
    assert "Unrecoverable" not in worker.log


def test_a_lost_connection_gives_nothing_back_that_still_runs(
    server: Server, worker: ToyWorker
) -> None:
    toys = [worker.send(sleep_s=4) for _ in range(4)]
    until(lambda: worker.in_hand == 4, WAIT_S)
    worker.redis.client_kill_filter(_type="normal", skipme=True)
    worker.redis.client_kill_filter(_type="pubsub")
    after = worker.send()
    until(lambda: worker.made[after] == 1, SOON_S, "consuming again")
    until(lambda: worker.in_hand == 0, WAIT_S, "the acknowledgement of all")
    assert worker.made == dict.fromkeys([*toys, after], 1)
    assert worker.inspect("ping") == {"ok": "pong"}


def test_a_broker_that_is_away_for_long_is_still_tried_every_few_seconds(
    own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def tried(error: Exception, wait_s: float) -> None:
        waits.append(wait_s)
        if len(waits) == TRIES:
            raise error

    monkeypatch.setattr("kombu.utils.functional.sleep", lambda wait_s: None)
    monkeypatch.setattr("worker.notices.SAY_AGAIN_S", 0.0)
    away = own.model_copy(update={"broker_url": SecretStr(f"redis://127.0.0.1:{free_port()}/0")})
    with celery_app(away) as app, pytest.raises(OperationalError):
        app.connection_for_read().ensure_connection(tried)
    assert waits == sorted(waits)
    assert max(waits) == MAX_WAIT_S


@pytest.mark.parametrize("how", ["replica", "too few replicas"])
def test_what_redis_refuses_for_a_while_is_an_outage_and_no_end(
    worker: ToyWorker, how: str
) -> None:
    before = worker.send()
    until(lambda: worker.made[before] == 1 and worker.in_hand == 0, WAIT_S)
    queued = worker.send(sleep_s=1)
    until(lambda: worker.in_hand == 1, WAIT_S)
    if how == "replica":
        worker.redis.replicaof("127.0.0.1", free_port())
    else:
        worker.redis.config_set("min-replicas-to-write", 1)
    until(lambda: "refuses to deliver messages for now" in worker.log, WAIT_S, "the refusal")
    until(lambda: worker.made[queued] == 1, WAIT_S)
    worker.redis.replicaof("NO", "ONE")
    worker.redis.config_set("min-replicas-to-write", 0)
    after = worker.send()
    until(lambda: worker.made[after] == 1, SOON_S, "the next one")
    until(lambda: worker.in_hand == 0, WAIT_S, "the acknowledgement of all")
    assert "Unrecoverable" not in worker.log
    assert "Traceback" not in worker.log.split("refuses to deliver messages")[1]


def test_a_message_for_which_redis_has_no_memory_is_kept(worker: ToyWorker, own: Settings) -> None:
    toys = [worker.send(sleep_s=3) for _ in range(24)]
    until(lambda: worker.in_hand == 24, WAIT_S)
    more = [worker.send() for _ in range(30)]
    worker.redis.config_set("maxmemory", 1)
    until(lambda: "refuses to deliver messages for now" in worker.log, WAIT_S, "the refusal")
    until(lambda: worker.in_hand == 0, WAIT_S, "the acknowledgements, for which there is room")
    worker.redis.config_set("maxmemory", 0)
    until(lambda: len(worker.made) == len(toys) + len(more), WAIT_S)
    assert worker.redis.llen(messages_key(own.key_prefix, str(Task("txt2img")))) == 0


def test_a_worker_whose_redis_is_gone_ends_when_it_is_told(
    server: Server, worker: ToyWorker
) -> None:
    toys = [worker.send(sleep_s=2) for _ in range(3)]
    until(lambda: worker.in_hand == 3, WAIT_S)
    server.child.kill()
    worker.signal(signal.SIGTERM)
    worker.wait_for_end()
    assert worker.made == dict.fromkeys(toys, 1)
