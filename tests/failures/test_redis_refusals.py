"""Redis answers with a temporary error: an outage, for workers and for clients."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError, ResponseError

from crossmodal.errors import BrokerUnavailable, InvalidSetting
from crossmodal.jobs.acl import Role
from crossmodal.jobs.connection import translated
from crossmodal.local.valkey import free_port
from crossmodal.settings import Settings, load_settings
from producer import Client
from tests.chaos.proxy import Proxy
from tests.servers import Server, start_server
from tests.toys import toy_worker
from tests.waiting import until
from tests.workers import environment, running_worker
from worker.beat import heard
from worker.health import Health, examine
from worker.notices import SAY_AGAIN_S

WAIT_S = 60
HELD = 2
LEASE_S = 4
HEARTBEAT_S = 10
NOTICES = {  # of what lasts, and of its end
    "leases are not renewed": "leases are renewed again",
    "models are not switched for now": "models are switched again",
    "lost messages is skipped for now": "lost messages are recovered again",
    "not acknowledged yet": "all messages of ended jobs are acknowledged",
    "are not redelivered for now": "messages of dead workers are redelivered again",
    "refuses to deliver messages for now": "Redis delivers messages again",
    "does not answer on the connection for messages": "answers again on the connection for",
}
PASSING = {
    "READONLY": "READONLY You can't write against a read only replica.",
    "MISCONF": "MISCONF Errors writing to the AOF file: No space left on device",
    "UNBLOCKED": "UNBLOCKED force unblock from blocking operation, instance state changed",
    "LOADING": "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN": "MASTERDOWN Link with MASTER is down.",
    "CLUSTERDOWN": "CLUSTERDOWN The cluster is down",
    "TRYAGAIN": "TRYAGAIN Multiple keys request during rehashing of slot",
    "BUSY": "BUSY Redis is busy running a script.",
    "NOREPLICAS": "NOREPLICAS Not enough good replicas to write.",
    "OOM": "OOM command not allowed when used memory > 'maxmemory'.",
    "of an old server": "ERR Error running script (call to f_1): @user_script:5: @user_script: 5: "
    "-READONLY You can't write against a read only replica.",
    "one that we do not know": "ELSEWHERE The instance is being moved",
}


class Stack:
    """A worker of fakes, its Redis and a client; the methods below are faults of that Redis."""

    def __init__(self, server: Server, admin: Any, client: Client, folder: Path) -> None:
        self.server = server
        self.admin = admin
        self.client = client
        self.folder = folder

    @property
    def connected(self) -> set[str]:
        """The ids of the worker's connections."""
        clients = self.admin.client_list()
        return {one["id"] for one in clients if one["name"].startswith("crossmodal:worker")}

    @property
    def health(self) -> Health:
        settings = load_settings(run_dir=self.folder / "run", heartbeat_s=HEARTBEAT_S)
        [health] = examine(settings)
        return health

    @property
    def log(self) -> str:
        return (self.folder / "worker" / "log").read_text()

    def replica(self) -> Callable[[], object]:
        self.admin.replicaof("127.0.0.1", free_port())
        return lambda: self.admin.replicaof("NO", "ONE")

    def stale_replica(self) -> Callable[[], object]:
        self.admin.config_set("replica-serve-stale-data", "no")
        end = self.replica()

        def ended() -> None:
            end()
            self.admin.config_set("replica-serve-stale-data", "yes")

        return ended

    def too_few_replicas(self) -> Callable[[], object]:
        self.admin.config_set("min-replicas-to-write", 1)
        return lambda: self.admin.config_set("min-replicas-to-write", 0)

    def unsaved(self) -> Callable[[], object]:
        """Make its snapshots fail: a folder is in their place."""
        in_place = self.folder / "valkey" / "dump.rdb"
        in_place.unlink(missing_ok=True)
        (in_place / "something").mkdir(parents=True)
        self.admin.config_set("save", "3600 1")
        self._save("err")

        def ended() -> None:
            (in_place / "something").rmdir()
            in_place.rmdir()
            self._save("ok")

        return ended

    def _save(self, outcome: str) -> None:
        def saved() -> bool:
            with suppress(ResponseError):  # one is under way
                self.admin.bgsave()
            return bool(self.admin.info("persistence")["rdb_last_bgsave_status"] == outcome)

        until(saved, WAIT_S, f"a snapshot that ends {outcome}")

    def busy(self) -> Callable[[], object]:
        self.admin.config_set("busy-reply-threshold", 50)

        def run() -> None:
            with self.server.admin() as redis, suppress(RedisError):
                redis.eval("while true do end", 0)

        thread = threading.Thread(target=run)
        thread.start()

        def ended() -> None:
            self.admin.script_kill()
            thread.join(WAIT_S)

        return ended

    def hung(self) -> Callable[[], object]:
        """Stop its process, whose connections the kernel keeps."""
        self.server.child.send(signal.SIGSTOP)
        return lambda: self.server.child.send(signal.SIGCONT)

    def full(self) -> Callable[[], object]:
        self.admin.config_set("maxmemory", 1)
        return lambda: self.admin.config_set("maxmemory", 0)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("refusals")
    server = start_server(folder / "valkey")
    settings = load_settings(
        broker_url=server.url(Role.WORKER),
        result_backend="",
        storage_url=(folder / "storage").as_uri(),
    )
    env = environment(settings) | {
        "CROSSMODAL_RUN_DIR": str(folder / "run"),
        "CROSSMODAL_LOG_LEVEL": "INFO",
        "CROSSMODAL_LEASE_S": str(LEASE_S),
        "CROSSMODAL_SWEEP_S": "1",
        "CROSSMODAL_HEARTBEAT_S": str(HEARTBEAT_S),
    }
    with (
        server.admin() as admin,
        running_worker(env, folder / "worker", 2 * HELD),
        Client(settings) as client,
    ):
        yield Stack(server, admin, client, folder)
    server.child.stop(10)


@contextmanager
def refusing(stack: Stack, how: str) -> Iterator[None]:
    with ExitStack() as ends:
        ends.callback(getattr(stack, how)())
        yield


def lasting(what: Callable[[], bool], seconds: float) -> None:
    """Wait until something is so, and until that is some time ago."""
    until(what, WAIT_S, "the outage")
    since = time.monotonic()
    until(lambda: time.monotonic() - since > seconds, WAIT_S)


QUICK = pytest.mark.quick
REFUSALS = [
    pytest.param("replica", marks=QUICK),
    "stale_replica",
    "too_few_replicas",
    "unsaved",
    "busy",
    "full",
]


@pytest.mark.parametrize("how", [*REFUSALS, "hung"])
def test_a_worker_outlasts_a_redis_that_refuses(stack: Stack, how: str) -> None:
    """For longer than a lease: no attempt is used up, no job waits for its lease to end."""
    before = len(stack.log)
    running = [stack.client.txt2img("a painter", seed=i) for i in range(HELD)]
    until(lambda: all(job.status().state == "running" for job in running), WAIT_S)
    with refusing(stack, how):
        lasting(lambda: stack.health.waits_for != "", LEASE_S + 1)
    after = stack.client.txt2img("a circle")
    after.result(timeout_s=WAIT_S)
    for job in running:
        job.result(timeout_s=WAIT_S)
    said = stack.log[before:]
    assert {stack.client.record(job.id).attempt for job in (*running, after)} == {1}
    assert "Unrecoverable" not in said
    assert "Traceback" not in said
    assert "is redelivered only when its lease ends" not in said


@pytest.mark.quick
def test_a_worker_that_is_refused_messages_is_live_and_not_ready(stack: Stack) -> None:
    with refusing(stack, "replica"):
        until(lambda: "read only replica" in stack.health.waits_for, WAIT_S, "the reason")
        assert stack.health.live
        assert not stack.health.ready
    until(lambda: stack.health.ready, WAIT_S, "the end of the refusal")


@pytest.mark.parametrize("how", ["unsaved", "busy", "full", "hung"])
def test_a_worker_is_live_and_says_little_however_long_an_outage_lasts(
    stack: Stack, how: str
) -> None:
    """It is longer than a heartbeat, though Celery's loop may wait for Redis all the time."""
    until(lambda: stack.health.ready, WAIT_S)
    before, begun = len(stack.log), time.monotonic()
    with refusing(stack, how):
        stack_says = {"unsaved": "MISCONF", "busy": "BUSY", "full": "maxmemory", "hung": "answer"}
        until(lambda: stack_says[how] in stack.health.waits_for, WAIT_S, "the reason")
        since = time.monotonic()
        states: set[tuple[bool, bool]] = set()

        def is_over() -> bool:
            states.add((stack.health.live, stack.health.ready))
            return time.monotonic() - since > 2 * HEARTBEAT_S

        until(is_over, WAIT_S)
    assert states == {(True, False)}
    until(lambda: stack.health.ready, WAIT_S, "the end of the outage")
    stack.client.txt2img("a circle").result(timeout_s=WAIT_S)
    said, most = stack.log[before:], 1 + (time.monotonic() - begun) // SAY_AGAIN_S
    counts = {notice: said.count(notice) for notice in NOTICES}
    assert max(counts.values()) <= most
    for notice, count in counts.items():
        if count:
            until(lambda end=NOTICES[notice]: end in stack.log[before:], WAIT_S, NOTICES[notice])  # type: ignore[misc]
    assert "killing it" not in stack.log[before:]


def test_a_worker_whose_connections_end_while_redis_refuses_waits_until_it_takes_writes(
    stack: Stack,
) -> None:
    before = len(stack.log)
    with refusing(stack, "replica"):
        for _ in range(3):
            known = stack.connected
            stack.admin.client_kill_filter(_type="normal", skipme=True)
            stack.admin.client_kill_filter(_type="pubsub")
            until(lambda known=known: bool(stack.connected - known), WAIT_S, "another connection")  # type: ignore[misc]
    stack.client.txt2img("a circle").result(timeout_s=WAIT_S)
    assert stack.log[before:].count("Trying to re-establish") <= 3
    assert "Frequent restarts" not in stack.log[before:]


@pytest.mark.parametrize("code", ["LOADING", "MISCONF", "CLUSTERDOWN", "TRYAGAIN"])
def test_a_worker_outlasts_whatever_is_said_in_place_of_redis(tmp_path: Path, code: str) -> None:
    """It neither ends nor restarts its consumer again and again."""
    server = start_server(tmp_path / "valkey")
    proxy = Proxy(server.port)
    url = server.url(Role.WORKER).replace(f":{server.port}/", f":{proxy.port}/")
    settings = load_settings(
        broker_url=server.url(Role.WORKER), result_backend="", storage_url=tmp_path.as_uri()
    )
    with (
        server.admin() as admin,
        toy_worker(
            settings,
            admin,
            tmp_path / "toys",
            CELERY_BROKER_URL=url,
            CROSSMODAL_SWEEP_S="1",
            CROSSMODAL_HEARTBEAT_FILE=str(tmp_path / "beat"),
        ) as toys,
    ):
        toys.inspect("ping")
        proxy.behaviour.says = PASSING[code]
        proxy.reset()
        lasting(lambda: bool(heard(tmp_path / "beat")), LEASE_S)
        proxy.behaviour.says = ""
        proxy.reset()
        assert toys.inspect("ping") == {"ok": "pong"}
        assert toys.process.is_alive
        assert "Unrecoverable" not in toys.log
        assert "Frequent restarts" not in toys.log
    proxy.close()
    server.child.stop(10)


@pytest.mark.quick
def test_a_worker_that_is_unblocked_goes_on(stack: Stack) -> None:
    before = len(stack.log)

    def unblocked() -> bool:
        for one in stack.admin.client_list():
            if "b" in one["flags"]:
                stack.admin.execute_command("CLIENT", "UNBLOCK", one["id"], "ERROR")
        return "UNBLOCKED" in stack.log[before:]

    until(unblocked, WAIT_S, "the end of its waiting")
    stack.client.txt2img("a circle").result(timeout_s=WAIT_S)
    assert "Traceback" not in stack.log[before:]


@pytest.mark.quick
@pytest.mark.parametrize("said", PASSING.values(), ids=PASSING)
def test_a_reply_that_may_pass_is_an_outage_for_whoever_asks(settings: Settings, said: str) -> None:
    with (
        answering(settings, said) as own,
        Client(own) as client,
        pytest.raises(BrokerUnavailable) as caught,
    ):
        client.txt2img("a circle")
    assert caught.value.retryable


@pytest.mark.quick
@pytest.mark.parametrize("said", ["WRONGTYPE Operation against a key", "ERR unknown command"])
def test_a_reply_that_no_waiting_changes_is_not_one_to_retry(settings: Settings, said: str) -> None:
    found = translated(ResponseError(said), settings)
    assert isinstance(found, BrokerUnavailable)
    assert not found.retryable


@pytest.mark.quick
def test_a_cluster_is_still_refused_by_its_name(settings: Settings) -> None:
    with (
        answering(settings, "CLUSTERDOWN Hash slot not served") as own,
        Client(own) as client,
        pytest.raises(InvalidSetting, match="cluster mode"),
    ):
        client.txt2img("a circle")


@contextmanager
def answering(settings: Settings, said: str) -> Iterator[Settings]:
    """Yield settings of a Redis that answers every command with the same error."""
    proxy = Proxy(free_port())
    proxy.behaviour.says = said
    try:
        yield settings.model_copy(
            update={"broker_url": type(settings.broker_url)(f"redis://127.0.0.1:{proxy.port}/0")}
        )
    finally:
        proxy.close()
