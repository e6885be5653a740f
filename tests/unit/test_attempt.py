"""An attempt at a job: how it ends, and what ends it early. Queue and host are real, models not."""

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from crossmodal.jobs.models import Models
from crossmodal.jobs.origin import Origin
from crossmodal.jobs.record import Failure, JobResult, JobState, ModelInfo, ServedKind
from crossmodal.jobs.runners import Runner
from crossmodal.kinds.queue import Queue
from crossmodal.kinds.task import Task
from crossmodal.settings import Settings
from producer import Client, JobHandle
from tests.fakes.local_host import FakeHost, serving
from tests.fakes.runner import LoopRunner, looping
from tests.waiting import until
from worker import attempt as attempts
from worker.endings import Busy, Ending, Released, Skipped, TakenMessage
from worker.hosts import Hosts
from worker.items import Items
from worker.serving import ServedModel

WORKER = "worker"
WAIT_S = 60.0


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


@contextmanager
def running(
    settings: Settings, folder: Path, **changed: Any
) -> Iterator[tuple[FakeHost, LoopRunner]]:
    own = settings.model_copy(update=changed)
    with serving(folder / "host.sock") as host, looping(own, folder / "host.sock") as runner:
        yield host, runner


@pytest.fixture
def worker(settings: Settings, tmp_path: Path) -> Iterator[tuple[FakeHost, LoopRunner]]:
    with running(settings, tmp_path / "run") as worker:
        yield worker


def taken(job: JobHandle, task: Task = Task("txt2img")) -> TakenMessage:
    return TakenMessage(job.id, task, {}, WORKER, is_recorded=True)


def png(side: int = 20) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(file, "PNG")
    return file.getvalue()


def code(ending: Ending) -> str:
    assert isinstance(ending, Failure | Released)
    return ending.code


def test_a_prompt_becomes_pictures_in_the_store(
    client: Client, worker: tuple[FakeHost, LoopRunner]
) -> None:
    job = client.txt2img("a circle", count=2, seed=1)
    result = worker[1].run(taken(job))
    assert isinstance(result, JobResult)
    assert job.result(0) == result
    assert [client.read(image)[:4] for image in result.images] == [b"\x89PNG"] * 2


def test_a_picture_becomes_captions_beside_it(
    client: Client, worker: tuple[FakeHost, LoopRunner]
) -> None:
    job = client.img2txt(png())
    result = worker[1].run(taken(job, Task("img2txt")))
    assert isinstance(result, JobResult)
    assert [caption.text for caption in result.captions] == ["a picture"]
    assert worker[0].batches == [["(8, 8, 3)"]]


def test_a_picture_that_is_none_fails_its_job_alone(
    client: Client, worker: tuple[FakeHost, LoopRunner]
) -> None:
    whole, cut = client.img2txt(png()), client.img2txt(png()[:60])
    endings = [worker[1].start(taken(job, Task("img2txt"))) for job in (cut, whole)]
    assert code(endings[0].result(WAIT_S)) == "invalid_image"
    assert isinstance(endings[1].result(WAIT_S), JobResult)


def test_a_job_that_is_canceled_while_it_is_on_the_device_ends_at_once(
    client: Client, worker: tuple[FakeHost, LoopRunner]
) -> None:
    host, runner = worker
    with host.held():
        job = client.txt2img("a circle")
        ending = runner.start(taken(job))
        until(lambda: host.batches == [["a circle"]], WAIT_S)
        assert job.cancel() is JobState.CANCELED
        assert ending.result(WAIT_S) == Skipped("canceled")
    assert not list(client.storage.list(f"results/{job.id}"))


def test_an_attempt_whose_job_another_has_begun_ends_at_once(
    client: Client, worker: tuple[FakeHost, LoopRunner]
) -> None:
    host, runner = worker
    job = client.txt2img("a circle")
    with host.held():
        first = runner.start(taken(job))
        until(lambda: host.batches == [["a circle"]], WAIT_S)
        client.redis.zrem(f"{client.settings.key_prefix}:leases", job.id)
        second = runner.start(taken(job))
        assert first.result(WAIT_S) == Skipped("superseded")
    result = second.result(WAIT_S)
    assert isinstance(result, JobResult)
    assert result.attempt == 2


def test_a_second_message_of_a_job_that_runs_is_told_so(
    client: Client, worker: tuple[FakeHost, LoopRunner]
) -> None:
    host, runner = worker
    job = client.txt2img("a circle")
    with host.held():
        first = runner.start(taken(job))
        until(lambda: job.status().state is JobState.RUNNING, WAIT_S)
        assert runner.run(taken(job)) == Busy()
    assert isinstance(first.result(WAIT_S), JobResult)


class Faulty(Hosts):
    """Fails before a job can begin, as nobody has foreseen."""

    def serves(self, queue: Queue) -> bool:
        raise LookupError("a fault")


def test_a_job_that_fails_before_it_can_begin_ends_and_does_not_come_again(
    client: Client, worker: tuple[FakeHost, LoopRunner]
) -> None:
    _, runner = worker
    job = client.txt2img("a circle")
    runner.runner.hosts = Faulty({}, None)
    with pytest.raises(LookupError):
        runner.run(taken(job))
    failure = client.record(job.id).failure
    assert failure is not None
    assert (failure.code, failure.message) == ("internal_error", "LookupError: a fault")
    [letter] = client.dead_letters.list()
    assert letter.job is not None
    assert letter.job.id == job.id


class Meanwhile(logging.Handler):
    """Does something as soon as a job is not started because its queue is paused."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self.act = act

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().endswith("is not started: paused"):
            self.act()


@pytest.mark.parametrize(("is_deleted", "reason"), [(False, "canceled"), (True, "unknown")])
def test_a_job_that_ends_while_its_message_is_put_back_makes_room_for_the_next(
    client: Client,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_deleted: bool,
    reason: str,
) -> None:
    narrow = Client(settings, max_batch=1)  # one message of a key lies in the queue
    job, held = (
        narrow.submit("txt2img", prompt="a circle", origin=Origin("somebody")) for _ in range(2)
    )

    def end() -> None:
        narrow.cancel(job)
        if is_deleted:
            narrow.delete(job)

    monkeypatch.setattr(attempts, "PAUSED_S", 0.01)
    caplog.set_level(logging.INFO, "worker.attempt")
    handler = Meanwhile(end)
    attempts.log.addHandler(handler)
    try:
        with narrow, running(settings, tmp_path / "run", max_batch=1) as (_, runner):
            narrow.pause("txt2img")
            assert narrow.record(held).held
            assert runner.run(taken(job)) == Skipped(reason)
            assert not narrow.record(held).held
    finally:
        attempts.log.removeHandler(handler)


def test_an_attempt_that_is_on_the_device_for_too_long_has_timed_out(
    client: Client, settings: Settings, tmp_path: Path
) -> None:
    with running(settings, tmp_path / "run", run_time_limit_s=0.3) as (host, runner), host.held():
        ending = runner.run(taken(client.txt2img("a circle")))
    assert isinstance(ending, Released)
    assert ending.code == "timed_out"
    assert "0.3 s" in ending.failure.message


def test_waiting_for_the_device_uses_up_no_run_time(
    client: Client, settings: Settings, tmp_path: Path
) -> None:
    """Jobs that wait for longer than they may run, behind one another."""
    with running(settings, tmp_path / "run", run_time_limit_s=1.0) as (host, runner):
        with host.held():
            before = runner.start(taken(client.txt2img("before")))
            until(lambda: host.batches == [["before"]], WAIT_S)
            behind = [runner.start(taken(client.txt2img(f"behind {i}"))) for i in range(64)]
            assert code(before.result(WAIT_S)) == "timed_out"  # so that much time has passed
        assert all(isinstance(ending.result(WAIT_S), JobResult) for ending in behind)


def test_an_outage_of_the_store_uses_up_no_attempt(
    client: Client, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    store = (file / "below").as_uri()  # which can be no folder
    with running(settings, tmp_path / "run", storage_url=store, max_attempts=1) as (_, runner):
        job = client.txt2img("a circle")
        for _ in range(3):
            assert code(runner.run(taken(job))).startswith("storage_")
    with running(settings, tmp_path / "again", max_attempts=1) as (_, runner):
        assert isinstance(runner.run(taken(job)), JobResult)


def test_a_decoder_that_does_not_start_for_hours_ends_a_job(
    client: Client, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.attempt.MAX_OUTAGES", 2)
    job = client.img2txt(png())
    folder = tmp_path / "run"
    with (
        serving(folder / "host.sock"),
        looping(settings, folder / "host.sock", decoder="tests.fakes.no_such_program") as runner,
    ):
        endings = [runner.run(taken(job, Task("img2txt"))) for _ in range(5)]
    assert [type(ending) for ending in endings] == [Released] * 4 + [Failure]
    assert {code(ending) for ending in endings} == {"image_decoder_crashed"}


def test_a_store_that_refuses_for_hours_ends_a_job(
    client: Client, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.attempt.MAX_OUTAGES", 3)
    file = tmp_path / "file"
    file.write_bytes(b"")
    with running(
        settings, tmp_path / "run", storage_url=(file / "below").as_uri(), max_attempts=1
    ) as (_, runner):
        job = client.txt2img("a circle")
        endings = [type(runner.run(taken(job))) for _ in range(4)]
    assert endings == [Released] * 3 + [Failure]
    assert len(list(client.dead_letters.list())) == 1


def test_a_picture_that_was_damaged_in_the_store_fails_its_job(
    client: Client, settings: Settings, tmp_path: Path
) -> None:
    image = client.upload(png())
    job = client.img2txt(image)
    client.storage.put(image.key, png(side=21), "image/png")
    with running(settings, tmp_path / "run", max_attempts=2) as (_, runner):
        endings = [runner.run(taken(job, Task("img2txt"))) for _ in range(2)]
    assert [type(ending) for ending in endings] == [Released, Failure]
    assert {code(ending) for ending in endings} == {"blob_damaged"}


@pytest.mark.parametrize(
    ("error", "tries"), [(MemoryError(), 3), (ZeroDivisionError("division by zero"), 1)]
)
def test_what_may_be_this_machines_fault_alone_is_tried_again(
    client: Client,
    worker: tuple[FakeHost, LoopRunner],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    tries: int,
) -> None:
    def store(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Items, "store", store)
    job = client.txt2img("a red circle")
    _, runner = worker
    endings = [runner.run(taken(job)) for _ in range(tries)]
    assert [type(ending) for ending in endings] == [Released] * (tries - 1) + [Failure]
    assert {code(ending) for ending in endings} == {"internal_error"}
    failure = client.record(job).failure
    assert failure is not None
    assert type(error).__name__ in failure.message


@pytest.mark.parametrize(
    "error",
    [OSError(24, "Too many open files"), RuntimeError("can't start new thread")],
    ids=["descriptors", "threads"],
)
def test_a_machine_that_has_no_more_of_something_uses_up_no_attempt(
    client: Client,
    worker: tuple[FakeHost, LoopRunner],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def store(*_: Any) -> None:
        raise error

    job = client.txt2img("a red circle")
    with monkeypatch.context() as patched:
        patched.setattr(Items, "store", store)
        endings = [worker[1].run(taken(job)) for _ in range(5)]
    assert {type(ending) for ending in endings} == {Released}
    assert isinstance(worker[1].run(taken(job)), JobResult)


def test_no_host_uses_up_no_attempt(client: Client, settings: Settings, tmp_path: Path) -> None:
    own = settings.model_copy(update={"max_attempts": 1})
    job = client.txt2img("a circle")
    with looping(own, tmp_path / "none.sock", wait_s=0.2) as runner:
        assert code(runner.run(taken(job))) == "model_host_unavailable"
    with running(own, tmp_path / "run") as (_, runner):
        assert isinstance(runner.run(taken(job)), JobResult)


def test_a_job_beside_which_the_host_died_runs_alone_next(
    client: Client, worker: tuple[FakeHost, LoopRunner]
) -> None:
    host, runner = worker
    host.deaths_left = 1
    job = client.txt2img("fatal")
    assert code(runner.run(taken(job))) == "model_host_crashed"
    assert client.redis.hget(f"{client.settings.key_prefix}:job:{job.id}", "alone") == "1"
    assert isinstance(runner.run(taken(job)), JobResult)


def test_a_job_of_plain_celery_has_its_record_opened(
    client: Client, worker: tuple[FakeHost, LoopRunner]
) -> None:
    plain = TakenMessage("plain-1", Task("txt2img"), {"prompt": "a circle"}, WORKER)
    assert isinstance(worker[1].run(plain), JobResult)
    assert client.record("plain-1").state is JobState.SUCCEEDED


def test_wrong_params_of_plain_celery_end_as_a_dead_letter(
    client: Client, worker: tuple[FakeHost, LoopRunner]
) -> None:
    ending = worker[1].run(TakenMessage("plain-2", Task("txt2img"), {"prompt": 5}, WORKER))
    assert code(ending) == "invalid_params"
    assert client.record("plain-2").state is JobState.FAILED


def test_a_job_that_has_outlived_its_record_is_not_run(
    client: Client, worker: tuple[FakeHost, LoopRunner]
) -> None:
    gone = TakenMessage("gone-1", Task("txt2img"), {"prompt": "a circle"}, WORKER, is_recorded=True)
    assert worker[1].run(gone) == Skipped("unknown")
    assert worker[0].batches == []


@pytest.mark.parametrize("role", [b"poison", b"tarpit", b"glutton"])
def test_a_picture_that_ends_its_decoder_fails_alone(
    client: Client, settings: Settings, tmp_path: Path, role: bytes
) -> None:
    """A crash, a hang and two gigabytes, each among 200 good pictures."""
    own = settings.model_copy(update={"decode_timeout_s": 2.0})
    socket = tmp_path / "host.sock"
    good = client.upload(png())
    with serving(socket), looping(own, socket, decoder="tests.fakes.decoder") as runner:
        bad = client.img2txt(png() + role)
        mates = [client.img2txt(good) for _ in range(200)]
        endings = [runner.start(taken(job, Task("img2txt"))) for job in (*mates[:100], bad)]
        endings += [runner.start(taken(job, Task("img2txt"))) for job in mates[100:]]
        found = [ending.result(WAIT_S) for ending in endings]
        assert code(found.pop(100)) == "image_decoder_crashed"
        assert all(isinstance(result, JobResult) and result.attempt == 1 for result in found)
        assert isinstance(runner.run(taken(bad, Task("img2txt"))), Released)
        last = runner.run(taken(bad, Task("img2txt")))
        assert isinstance(last, Failure)
        assert last.code == "image_decoder_crashed"


def two_models(settings: Settings, socket: Path) -> Hosts:
    """Those of the models a, which is the default one, and b; they share a host."""
    kinds = {"txt2img": ServedKind()}
    models = [
        ServedModel(
            info=ModelInfo(name=name, version="0", format="code", kinds=kinds, default_for=default),
            socket=socket,
            folder=socket.parent,
            queues=(queue, f"{queue}.bulk"),
        )
        for name, default, queue in (("a", ("txt2img",), "txt2img"), ("b", (), "txt2img.b"))
    ]
    with Runner(settings) as runner:
        runner.run(Models(settings).announce([model.info for model in models]))
    return Hosts.of_models(settings, models)


def test_a_model_is_busy_also_with_jobs_that_came_by_the_queue_of_another(
    settings: Settings, worker: tuple[FakeHost, LoopRunner], tmp_path: Path
) -> None:
    host, runner = worker
    runner.runner.hosts = hosts = two_models(settings, tmp_path / "run" / "host.sock")
    given = {"prompt": "a circle", "model": "b"}
    with host.held():
        ending = runner.start(TakenMessage("plain", Task("txt2img"), given, WORKER, "txt2img"))
        until(lambda: host.batches == [["a circle"]], WAIT_S)
        assert (hosts.running("a"), hosts.running("b")) == (0, 1)
    assert isinstance(ending.result(WAIT_S), JobResult)
    assert hosts.running("b") == 0


def test_what_is_wrong_with_a_message_is_said_by_whoever_takes_it(
    settings: Settings, worker: tuple[FakeHost, LoopRunner], tmp_path: Path
) -> None:
    """The default model, in whose queue such a job is, need not be loaded for that."""
    _, runner = worker
    runner.runner.hosts = hosts = two_models(settings, tmp_path / "run" / "host.sock")
    hosts.open(["txt2img.b"])
    given = {"prompt": "a circle", "model": "c"}
    ending = runner.run(TakenMessage("plain", Task("txt2img"), given, WORKER, "celery"))
    assert code(ending) == "model_not_found"


def test_a_plain_bulk_message_that_names_the_default_model_waits_with_those_that_name_none(
    client: Client, settings: Settings, worker: tuple[FakeHost, LoopRunner], tmp_path: Path
) -> None:
    _, runner = worker
    runner.runner.hosts = hosts = two_models(settings, tmp_path / "run" / "host.sock")
    hosts.open(["txt2img.b"])
    given = {"batch": "x", "number": 0, "items": 1, "input": {"key": "bulk/x"}, "model": "a"}
    task = Task("txt2img.bulk")
    assert runner.run(TakenMessage("plain", task, given, WORKER, "celery")) == Skipped("superseded")
    assert client.record("plain").queue == str(Queue(task))
