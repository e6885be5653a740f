"""What a scaler reads and does, on a real Valkey; its workers are small programs here.

The real ones are in tests/integration/test_autoscale.py.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from pydantic import SecretStr

from crossmodal.errors import BrokerUnavailable, InvalidSetting
from crossmodal.jobs.ledger import Attempt
from crossmodal.jobs.names import bulk_job_id, messages_key, queue_key
from crossmodal.jobs.params import BulkParams
from crossmodal.jobs.submission import Submission
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.task import Task
from crossmodal.local.valkey import free_port
from crossmodal.settings import Settings
from producer import Client
from tests.at_once import at_once
from tests.exposition import problems_of
from tests.servers import start_server, user_url
from tests.waiting import until
from worker.autoscale.cli import autoscale
from worker.autoscale.demand import Demand
from worker.autoscale.fleet import Fleet, Slot, SlotState
from worker.autoscale.metrics import SCALER
from worker.autoscale.policy import Load, Policy
from worker.autoscale.scaler import Scaler, claim
from worker.crews import Crew

# Ready at once; SIGTERM ends it when what runs, a file, is gone; a second one does at once.
PROGRAM = """
import pathlib, signal, sys
from crossmodal.processes import wait_until
ready, busy = map(pathlib.Path, sys.argv[1:])
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
ready.touch()
wait_until(lambda: len(told) == 2 or bool(told and not busy.exists()), 600)
sys.exit(len(told) - 1)
"""
BULK = ".bulk"
QUEUES = ["txt2img", "img2txt", "txt2img.bulk", "img2txt.bulk"]


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


def crews(queues: list[str]) -> list[Crew]:
    bulk = [queue for queue in queues if queue.endswith(BULK)]
    lanes = [
        Crew([*(q for q in queues if q not in bulk), "celery"], 12),
        Crew(bulk, 2, is_bulk=True),
    ]
    return [crew for crew in lanes if crew.queues]


@pytest.fixture
def demand(settings: Settings) -> Iterator[Demand]:
    demand = Demand(settings, crews(QUEUES), 5, 60)
    yield demand
    demand.close()


def ended(how: str) -> float:
    return SCALER.get_sample_value("crossmodal_autoscale_ended_total", {"how": how}) or 0.0


def slots_of(folder: Path, count: int) -> list[Slot]:
    found = []
    for i in range(count):
        ready = folder / f"{i}.ready"
        argv = [sys.executable, "-c", PROGRAM, str(ready), str(folder / f"{i}.busy")]
        found.append(Slot(i, f"worker {i}", argv, ready, {}))
    return found


@pytest.fixture
def fleet(settings: Settings, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(settings, [], tmp_path, [])
    fleet.slots = slots_of(tmp_path, 3)
    yield fleet
    for slot in fleet.slots:
        slot.kill()


def watched(fleet: Fleet, condition: Callable[[], bool]) -> Callable[[], bool]:
    def look() -> bool:
        fleet.watch()
        return condition()

    return look


def until_ready(fleet: Fleet, count: int) -> None:
    until(watched(fleet, lambda: fleet.count(SlotState.READY) == count), what="ready")


def of(demand: Demand, queue: str) -> Load:
    return next(load for load in demand.look().loads if load.queue == queue)


def start(client: Client, job_id: str, worker: str = "worker@elsewhere") -> Attempt:
    attempt = client.run(client.ledger.start(job_id, worker))
    assert isinstance(attempt, Attempt)
    return attempt


# -- what is read -----------------------------------------------------------------------


def test_waiting_and_running_jobs_are_counted_and_what_they_took(
    client: Client, demand: Demand
) -> None:
    assert of(demand, "txt2img").run_s is None
    jobs = [client.txt2img(f"a red circle {i}") for i in range(5)]
    client.redis.rpop(messages_key(client.settings.key_prefix, "txt2img"))
    start(client, jobs[0].id)
    stats = queue_key(client.settings.key_prefix, "txt2img", "stats")
    client.redis.hset(stats, "mean_run_s", "0.25")
    found = of(demand, "txt2img")
    assert (found.waiting, found.running, found.submitted) == (4, 1, 5)
    assert (found.run_s, found.slots, found.target_wait_s) == (0.25, 12, 5)


def test_bulk_messages_are_weighed_by_their_items(client: Client, demand: Demand) -> None:
    stats = queue_key(client.settings.key_prefix, "txt2img.bulk", "stats")
    client.redis.hset(stats, mapping={"mean_run_s": "9.9", "mean_item_s": "0.5"})
    for number, items in enumerate((8, 8, 32)):
        submit_bulk(client, number, items)
    found = of(demand, "txt2img.bulk")
    assert (found.waiting, found.run_s) == (3, 16 * 0.5)
    assert (found.slots, found.target_wait_s) == (2, 60)


def submit_bulk(client: Client, number: int, items: int) -> None:
    blob = BlobRef(key="inputs/none")
    params = BulkParams(kind="txt2img", input=blob, items=items, batch="b", number=number)
    client.run(
        client.ledger.submit(
            Submission(
                bulk_job_id("b", number),
                Task("txt2img.bulk"),
                params.model_dump_json(),
                "",
                batch=params,
            )
        )
    )


def test_messages_of_plain_celery_ask_for_workers_before_they_have_records(
    client: Client, demand: Demand
) -> None:
    client.redis.lpush(messages_key(client.settings.key_prefix, "celery"), *["{}"] * 40)
    assert of(demand, "celery").waiting == 40
    assert demand.look().need == 1.0  # nobody knows yet how long they take


def test_jobs_at_workers_of_this_machine_are_told_by_the_supervisor(
    client: Client, demand: Demand
) -> None:
    here = socket.gethostname()
    names = [f"cpu.77@{here}", f"cpu.77@{here}", f"cuda0-f0a2.88@{here}", "cpu.99@elsewhere"]
    for name in names:
        start(client, client.txt2img("a red circle").id, name)
    assert demand.busy() == {77: 2, 88: 1}


@pytest.mark.parametrize("name", ["celery", "gpu.one", "w1.", "7²"])
def test_workers_that_somebody_has_named_are_nobodys_of_the_fleet(
    name: str, client: Client, demand: Demand
) -> None:
    start(client, client.txt2img("a red circle").id, f"{name}@{socket.gethostname()}")
    assert demand.busy() == {}


def test_a_worker_that_has_ended_makes_no_metric_with_the_name_of_another() -> None:
    code = (
        "import sys; from prometheus_client import generate_latest; "
        "from worker.autoscale.metrics import ENDED, SCALER; "
        "ENDED.labels('unused').inc(); sys.stdout.buffer.write(generate_latest(SCALER))"
    )
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert problems_of(text.stdout) == []


# -- what is done -----------------------------------------------------------------------


def test_a_worker_is_started_is_ready_and_drains(fleet: Fleet) -> None:
    fleet.add(1)
    assert fleet.size == 1
    until_ready(fleet, 1)
    fleet.remove(1, {})
    assert fleet.size == 0
    until(fleet.has_ended, what="the drain")


def test_a_worker_that_is_stopped_while_it_starts_was_not_cut_off(fleet: Fleet) -> None:
    cut_off, unused = (ended(how) for how in ("cut_off", "unused"))
    fleet.add(1)
    fleet.remove(1, {})  # before the program can have said what SIGTERM does
    until(fleet.has_ended, what="its end")
    assert ended("cut_off") == cut_off
    assert ended("unused") == unused + 1


def test_idle_workers_go_before_busy_ones(fleet: Fleet) -> None:
    fleet.add(3)
    until_ready(fleet, 3)
    pids = [slot.pid or 0 for slot in fleet.slots]
    fleet.remove(1, {pids[0]: 2, pids[2]: 1})
    assert [slot.state for slot in fleet.slots].index(SlotState.READY) == 0
    assert fleet.slots[1].state is not SlotState.READY
    until(watched(fleet, lambda: fleet.slots[1].state is SlotState.OFF))
    fleet.remove(1, {pids[0]: 2, pids[2]: 1})
    assert fleet.slots[0].state is SlotState.READY
    assert fleet.slots[2].state is not SlotState.READY


def test_a_worker_that_drains_is_told_once_however_often_it_is_let_go(
    fleet: Fleet, tmp_path: Path
) -> None:
    busy = tmp_path / "0.busy"
    busy.touch()
    fleet.add(1)
    until_ready(fleet, 1)
    cut_off = ended("cut_off")
    fleet.remove(1, {})
    fleet.drain()  # as when the scaler is told to stop meanwhile
    fleet.drain()
    fleet.watch()
    assert fleet.slots[0].state is SlotState.DRAINING
    busy.unlink()
    until(fleet.has_ended, what="the drain")
    assert ended("cut_off") == cut_off


def test_a_worker_that_still_drains_keeps_its_device(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "0.busy").touch()
    fleet.add(1)
    until_ready(fleet, 1)
    fleet.remove(1, {})
    fleet.add(3)
    assert [slot.state is SlotState.DRAINING for slot in fleet.slots] == [True, False, False]
    assert fleet.size == 2


def test_what_does_not_end_is_cut_off(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "0.busy").touch()
    fleet.add(1)
    until_ready(fleet, 1)
    cut_off = ended("cut_off")
    fleet.drain()
    fleet.end()
    assert ended("cut_off") == cut_off + 1


def test_a_crashed_worker_is_replaced_later_after_each_crash(fleet: Fleet) -> None:
    fleet.add(1)
    for _ in range(4):
        until_ready(fleet, 1)
        pid = fleet.slots[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(watched(fleet, partial(is_replaced, fleet.slots[0], pid)), what="another one")
    fleet.watch()
    assert fleet.size == 1  # also while it waits for its turn to be started


def test_a_worker_that_cannot_be_started_is_tried_again_and_keeps_nobody_from_being_watched(
    fleet: Fleet, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.watched.RETRY_S", 0.2)
    argv, fleet.slots[0].argv = fleet.slots[0].argv, [str(tmp_path / "nowhere")]
    fleet.add(2)
    until(watched(fleet, lambda: fleet.slots[1].state is SlotState.READY), what="the other one")
    assert "worker 0 cannot be started" in caplog.text
    fleet.slots[0].watched.child.argv = argv  # type: ignore[union-attr]
    until_ready(fleet, 2)


def is_replaced(slot: Slot, pid: int) -> bool:
    return slot.state is SlotState.STARTING or slot.pid != pid


def test_the_workers_get_a_device_a_port_and_as_long_as_their_longest_job(
    settings: Settings, tmp_path: Path
) -> None:
    from worker.devices import Device

    given = settings.model_copy(
        update={"metrics_port": 9_000, "run_time_limit_s": 100.0, "img2txt_run_time_limit_s": 700.0}
    )
    fleet = Fleet(given, [Device("cuda:0"), Device("cuda:1")], tmp_path, ["--queues", "txt2img"])
    first, second = fleet.slots
    assert first.argv[-2:] == second.argv[-2:] == ["--queues", "txt2img"]
    assert second.argv[second.argv.index("--devices") + 1] == "cuda:1"
    assert second.env == {"CROSSMODAL_DRAIN_S": "730.0", "CROSSMODAL_METRICS_PORT": "9002"}


# -- a whole scaler ---------------------------------------------------------------------


def test_for_jobs_of_a_paused_queue_no_worker_is_wanted(client: Client, demand: Demand) -> None:
    client.txt2img("a red circle")
    client.pause("txt2img")
    assert of(demand, "txt2img").waiting == 0
    client.resume("txt2img")
    assert of(demand, "txt2img").waiting == 1


def test_a_scaler_that_loses_redis_keeps_what_it_has_and_goes_on_later(
    settings: Settings, tmp_path: Path, fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    port = free_port()
    given = settings.model_copy(
        update={
            "broker_url": SecretStr(user_url(port, prefix=settings.key_prefix)),
            "connect_timeout_s": 5,
        }
    )
    demand = Demand(given, crews(["txt2img"]), 5, 60)
    scaler = Scaler(given, Policy(0, 3, 60, 4), demand, fleet, 1)
    fleet.add(2)
    with pytest.raises(BrokerUnavailable):
        demand.look()
    for _ in range(3):
        scaler.step()
    assert fleet.size == 2
    assert caplog.text.count("keeping 2 workers as they are") == 1
    server = start_server(tmp_path / "valkey", port)
    try:
        server.add_users(settings.key_prefix)
        scaler.step()
        assert "Redis answers again" in caplog.text
        assert fleet.size == 0
    finally:
        server.stop()
        demand.close()


def test_an_error_of_ours_stops_no_worker(
    settings: Settings,
    demand: Demand,
    fleet: Fleet,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails() -> None:
        raise ValueError("unexpected")

    scaler = Scaler(settings, Policy(0, 3, 60, 4), demand, fleet, 0)
    fleet.add(2)
    with monkeypatch.context() as patched:
        patched.setattr(demand, "look", fails)
        scaler.turn()
    assert fleet.size == 2
    assert "ValueError: unexpected" in caplog.text
    scaler.turn()
    assert fleet.size == 0


def test_a_second_scaler_of_a_machine_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _, lock = claim(folder)
    with lock, pytest.raises(InvalidSetting, match=rf"another scaler \(pid {os.getpid()}\)"):
        claim(folder)
    _, again = claim(folder)
    again.close()


@at_once(
    "options, says",
    [
        ({"devices": "cpu", "least": 3, "most": 2}, "--min 3 is more than --max 2"),
        ({"worker_options": ["--devices", "cuda:0"]}, "--devices cannot be among"),
        ({"worker_options": ["--ready-file", "x"]}, "--ready-file cannot be among"),
        ({"worker_options": ["--devices", "auto"]}, "--devices cannot be among"),
        ({"worker_options": ["--queues", "foo"]}, "--queues 'foo': choose from"),
        ({"worker_options": ["--queues", ""]}, "--queues '': choose from"),
        ({"devices": "cuda:7"}, "cuda:7"),
        ({"devices": "cpu,cuda:0"}, "GPUs only, or cpu only"),
    ],
)
def test_what_cannot_be_is_refused(
    options: dict[str, object],
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import typer

    monkeypatch.setattr("worker.devices.gpu_names", lambda: ["NVIDIA H200"])
    with pytest.raises(typer.Exit) as ended:
        autoscale(**options)  # type: ignore[arg-type]
    assert ended.value.exit_code == 2
    assert says in capsys.readouterr().err


@at_once("name", ["worker", "autoscale"])
def test_no_word_of_the_help_is_taken_for_markup(name: str) -> None:
    from rich.text import Text

    from crossmodal.cli import load

    for option in load(name).params:
        text = getattr(option, "help", None) or ""
        assert Text.from_markup(text).plain == text
