"""Toy coroutines through our pool and transport, on a real broker: what Celery promises, holds."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from crossmodal.jobs.connection import connection_name
from crossmodal.jobs.dead import DeadLetters
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.message import message_of
from crossmodal.jobs.names import messages_key
from crossmodal.jobs.runners import Runner
from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.settings import Settings
from tests.monitoring import Monitor, monitoring
from tests.servers import Server
from tests.toys import WORKER, ToyWorker, toy_worker, toys_of
from tests.waiting import until
from tests.workers import environment

ROOM, BULK_ROOM = 4, 2
WAIT_S = 60


@pytest.fixture(scope="module")
def shared(redis_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToyWorker]:
    """A worker that the tests of this file share, for what does not end it."""
    folder = tmp_path_factory.mktemp("toys")
    with toys_of(redis_server, "toys", folder, ROOM, BULK_ROOM) as worker:
        yield worker


@pytest.fixture(scope="module")
def monitor(shared: ToyWorker) -> Iterator[Monitor]:
    with monitoring(shared.settings) as monitor:
        yield monitor


@pytest.fixture
def worker(shared: ToyWorker, monitor: Monitor) -> Iterator[ToyWorker]:
    """The shared worker, with nothing in hand before and after."""
    yield shared
    until(lambda: shared.in_hand == 0 and shared.waiting() == 0, WAIT_S, "the end of all")


def test_a_message_leaves_redis_when_its_job_has_ended(worker: ToyWorker) -> None:
    toy = worker.send(sleep_s=1)
    until(lambda: worker.in_hand == 1, WAIT_S)
    assert toy not in worker.made
    until(lambda: worker.in_hand == 0, WAIT_S)
    assert worker.made[toy] == 1


def test_events_tell_the_story_in_its_order(worker: ToyWorker, monitor: Monitor) -> None:
    toy = worker.send(sleep_s=0.1, what="a chair")
    until(lambda: monitor.state_of(toy) == "SUCCESS", WAIT_S, "the success")
    assert monitor.story_of(toy) == ["received", "started", "succeeded"]
    assert "made a chair" in monitor.last_of(toy)["result"]
    assert monitor.last_of(toy)["runtime"] >= 0.1


@pytest.mark.parametrize(
    ("do", "state"),
    [("fail", "FAILURE"), ("raise", "FAILURE"), ("exit", "FAILURE"), ("cancel itself", "FAILURE")],
)
def test_a_failure_is_told_and_frees_its_room(
    worker: ToyWorker, monitor: Monitor, do: str, state: str
) -> None:
    toys = [worker.send(do=do) for _ in range(ROOM + 1)]
    for toy in toys:
        until(lambda toy=toy: monitor.state_of(toy) == state, WAIT_S, do)  # type: ignore[misc]
        assert monitor.story_of(toy) == ["received", "started", "failed"]
    after = worker.send()
    until(lambda: worker.made[after] == 1, WAIT_S, "the next one")


def test_what_is_rejected_is_gone(worker: ToyWorker, monitor: Monitor) -> None:
    toy = worker.send(do="reject")
    until(lambda: "rejected" in monitor.story_of(toy), WAIT_S, "the rejection")
    until(lambda: worker.in_hand == 0, WAIT_S)
    assert worker.waiting() == 0


def test_what_is_rejected_for_another_runs_again(worker: ToyWorker, monitor: Monitor) -> None:
    toy = worker.send(do="requeue")
    until(lambda: worker.made[toy] == 1, WAIT_S)
    until(lambda: monitor.state_of(toy) == "SUCCESS", WAIT_S)
    assert [kind for kind in monitor.story_of(toy) if kind != "received"] == [
        "started",
        "rejected",
        "started",
        "succeeded",
    ]


def test_what_is_ignored_is_gone(worker: ToyWorker, monitor: Monitor) -> None:
    toy = worker.send(do="ignore")
    until(lambda: monitor.state_of(toy) == "STARTED", WAIT_S)
    until(lambda: worker.in_hand == 0, WAIT_S)


def test_a_retry_comes_back_after_its_countdown(worker: ToyWorker, monitor: Monitor) -> None:
    toy = worker.send(do="retry")
    until(lambda: worker.made[toy] == 1, WAIT_S)
    until(lambda: monitor.state_of(toy) == "SUCCESS", WAIT_S)
    story = monitor.story_of(toy)
    assert [kind for kind in story if kind != "received"] == [
        "started",
        "retried",
        "started",
        "succeeded",
    ]


@pytest.mark.parametrize("terminate", [True, False])
def test_a_running_job_is_revoked_at_once(
    worker: ToyWorker, monitor: Monitor, terminate: bool
) -> None:
    toy = worker.send(sleep_s=600)
    until(lambda: f"sleeps {toy}" in worker.log, WAIT_S)
    worker.app.control.revoke(toy, terminate=terminate)
    until(lambda: monitor.state_of(toy) == "REVOKED", WAIT_S, "the revocation")
    until(lambda: f"canceled {toy}" in worker.log, WAIT_S, "the cancelation")
    until(lambda: worker.in_hand == 0, WAIT_S, "the acknowledgement")
    assert monitor.story_of(toy) == ["received", "started", "revoked"]


def test_a_job_that_waits_is_revoked_when_its_message_comes(
    worker: ToyWorker, monitor: Monitor
) -> None:
    running = [worker.send(sleep_s=2) for _ in range(ROOM)]
    until(lambda: worker.in_hand == ROOM, WAIT_S)
    waiting = worker.send()
    worker.app.control.revoke(waiting, reply=True, timeout=20, limit=1)
    until(lambda: monitor.state_of(waiting) == "REVOKED", WAIT_S, "the revocation")
    assert "started" not in monitor.story_of(waiting)
    until(lambda: all(worker.made[toy] for toy in running), WAIT_S)
    assert waiting not in worker.made


def test_inspections_show_what_the_worker_does(worker: ToyWorker) -> None:
    toys = {worker.send(sleep_s=600) for _ in range(2)}
    until(lambda: worker.in_hand == 2, WAIT_S)
    assert {request["id"] for request in worker.inspect("active")} == toys
    assert {request["id"] for request in worker.inspect("reserved")} <= toys
    assert Task("txt2img").celery_name in worker.inspect("registered")
    pool = worker.inspect("stats")["pool"]
    assert (pool["max-concurrency"], pool["bulk-concurrency"]) == (ROOM, BULK_ROOM)
    assert (pool["running"], pool["waiting"]) == (2, 0)
    worker.app.control.revoke(list(toys))


def test_bulk_messages_and_interactive_ones_have_room_of_their_own(worker: ToyWorker) -> None:
    bulk = [worker.send(Task("txt2img.bulk"), sleep_s=3) for _ in range(BULK_ROOM + 1)]
    until(lambda: worker.in_hand == BULK_ROOM, WAIT_S)
    interactive = [worker.send(sleep_s=0.1) for _ in range(2 * ROOM)]
    until(lambda: all(worker.made[toy] for toy in interactive), WAIT_S)
    assert worker.waiting(Task("txt2img.bulk")) == 1
    until(lambda: all(worker.made[toy] for toy in bulk), WAIT_S)


def test_a_full_lane_takes_at_once_when_it_has_room_again(worker: ToyWorker) -> None:
    for _ in range(ROOM):
        worker.send(sleep_s=1)
    until(lambda: worker.in_hand == ROOM, WAIT_S)  # and BRPOP waits for bulk messages alone
    toys = [worker.send() for _ in range(50)]
    until(lambda: all(worker.made[toy] for toy in toys), WAIT_S)


@pytest.mark.parametrize("depth", [500, 100_000])
def test_arguments_that_are_nested_too_deep_take_no_room(worker: ToyWorker, depth: int) -> None:
    nested = "[" * depth + "]" * depth
    message = json.loads(message_of("deep", Txt2ImgParams(prompt="a", seed=1)))
    message["body"] = f'[[],{{"deep":{nested}}},{{}}]'
    message["properties"]["body_encoding"] = None
    key = messages_key(worker.settings.key_prefix, str(Task("txt2img")))
    dead = DeadLetters(worker.settings, JobLedger(worker.settings))
    with Runner(worker.settings) as runner:
        before = runner.run(dead.count())
        for _ in range(ROOM + 1):
            worker.redis.lpush(key, json.dumps(message))
        until(lambda: runner.run(dead.count()) == before + ROOM + 1, WAIT_S, "the dead letters")
    after = worker.send()
    until(lambda: worker.made[after] == 1, WAIT_S, "the next one")


def test_messages_of_every_priority_are_taken(worker: ToyWorker) -> None:
    toys = [
        worker.app.send_task(Task("txt2img").celery_name, queue="txt2img", priority=priority).id
        for priority in (0, 3, 6, 9)
    ]
    until(lambda: all(worker.made[toy] for toy in toys), WAIT_S)


def test_a_worker_at_rest_has_few_connections_and_names_them(
    settings: Settings, admin: Any, tmp_path: Path
) -> None:
    with toy_worker(settings, admin, tmp_path) as worker:
        worker.inspect("ping")
        sockets = psutil.Process(worker.process.pid).net_connections()
        ours = {f"127.0.0.1:{socket.laddr.port}" for socket in sockets}
        names = [client["name"] for client in admin.client_list() if client["addr"] in ours]
        assert 3 <= len(names) <= 6 - len(["the job runner's, which toys have not"])
        assert set(names) == {connection_name("worker")}


def test_another_pool_is_refused(settings: Settings, tmp_path: Path) -> None:
    env = os.environ | environment(settings) | {"TOY_FILE": str(tmp_path / "made")}
    command = [*WORKER, "--pool", "solo"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (done.returncode, "without --pool" in done.stderr) == (1, True), done.stderr


def test_a_result_backend_is_told(settings: Settings, admin: Any, tmp_path: Path) -> None:
    url = settings.broker_url.get_secret_value()
    with toy_worker(settings, admin, tmp_path, CELERY_RESULT_BACKEND=url) as worker:
        made = worker.app.AsyncResult(worker.send(what="a chair"))
        failed = worker.app.AsyncResult(worker.send(do="fail"))
        assert made.get(timeout=WAIT_S) == "made a chair"
        with pytest.raises(ValueError, match="it failed"):
            failed.get(timeout=WAIT_S)
        made.forget()
        failed.forget()


def test_a_warm_shutdown_finishes_what_runs_and_takes_no_more(
    settings: Settings, admin: Any, tmp_path: Path
) -> None:
    with toy_worker(settings, admin, tmp_path, ROOM) as worker:
        quick, slow = worker.send(sleep_s=2), worker.send(sleep_s=4)
        until(lambda: worker.log.count("sleeps ") == 2, WAIT_S)
        worker.signal(signal.SIGTERM)
        until(lambda: "Warm shutdown" in worker.log, WAIT_S)
        until(lambda: worker.in_hand == 1, WAIT_S, "the first acknowledgement")
        assert worker.process.is_alive
        assert worker.made[quick] == 1
        late = worker.send()
        assert worker.wait_for_end() == 0
        assert worker.made == {quick: 1, slow: 1}
        assert (worker.in_hand, worker.waiting()) == (0, 1)
        assert late not in worker.made


def test_a_cold_shutdown_gives_back_what_runs(
    settings: Settings, admin: Any, tmp_path: Path
) -> None:
    with toy_worker(settings, admin, tmp_path, ROOM) as worker:
        toys = [worker.send(sleep_s=600) for _ in range(ROOM + 2)]
        until(lambda: worker.log.count("sleeps ") == ROOM, WAIT_S)
        worker.signal(signal.SIGQUIT)
        worker.wait_for_end()
        assert (worker.in_hand, worker.waiting()) == (0, ROOM + 2)
        assert sum(f"canceled {toy}" in worker.log for toy in toys) == ROOM
        assert not worker.made


def test_a_cold_shutdown_ends_a_warm_one(settings: Settings, admin: Any, tmp_path: Path) -> None:
    with toy_worker(settings, admin, tmp_path, ROOM) as worker:
        quick, slow = worker.send(sleep_s=1), worker.send(sleep_s=600)
        until(lambda: worker.log.count("sleeps ") == 2, WAIT_S)
        worker.signal(signal.SIGTERM)
        until(lambda: worker.in_hand == 1, WAIT_S)
        worker.signal(signal.SIGQUIT)
        worker.wait_for_end()
        assert (worker.in_hand, worker.waiting()) == (0, 1)
        assert f"canceled {slow}" in worker.log
        assert worker.made == {quick: 1}


def test_a_soft_shutdown_gives_time_to_what_is_nearly_done(
    settings: Settings, admin: Any, tmp_path: Path
) -> None:
    with toy_worker(settings, admin, tmp_path, ROOM, TOY_SOFT_S="3") as worker:
        quick, slow = worker.send(sleep_s=1), worker.send(sleep_s=600)
        until(lambda: worker.log.count("sleeps ") == 2, WAIT_S)
        worker.signal(signal.SIGQUIT)
        worker.wait_for_end()
        assert worker.made == {quick: 1}
        assert f"canceled {slow}" in worker.log
        assert (worker.in_hand, worker.waiting()) == (0, 1)
