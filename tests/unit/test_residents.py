"""What a worker makes of the models of its device; Redis is real, hosts are sockets."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crossmodal.files import write_whole
from crossmodal.jobs.leases import Leases
from crossmodal.jobs.names import loading_key, messages_key
from crossmodal.jobs.record import Failure, JobState, ModelInfo, ServedKind
from crossmodal.jobs.runners import AsyncRunner, Runner
from crossmodal.jobs.submission import Submission
from crossmodal.jobs.workers import Workers
from crossmodal.kinds.task import Task
from crossmodal.settings import Settings
from tests.ledgers import Ledger
from worker.residents import Residents, State
from worker.serving import ServedModel, Serving, broken_file, info_file

WORKER = "cpu.1@here"
WAIT_S = 10.0


def info(name: str) -> ModelInfo:
    return ModelInfo(name=name, version="0", format="code", kinds={"txt2img": ServedKind()})


def a_model(folder: Path, name: str) -> ServedModel:
    return ServedModel(
        info=info(name),
        socket=folder / f"{name}.sock",
        folder=folder,
        needs=900,
        queues=(f"txt2img.{name}",),
    )


@contextmanager
def listening(model: ServedModel) -> Iterator[None]:
    """As its host does once it is warm, which has said what it needs."""
    said = info(model.name).model_copy(update={"peak_bytes": 600, "load_s": 0.1})
    write_whole(info_file(model.socket), said.model_dump_json())
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(str(model.socket))
        yield
    model.socket.unlink()
    info_file(model.socket).unlink()


class Device:
    """A device with room for one of the models a, b and c, of which a is loaded."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.models = {name: a_model(folder, name) for name in "abc"}
        self.serving = Serving(folder, "cpu")
        self.serving.write("cpu", list(self.models.values()), 1_000)
        self.serving.want(["a"])
        self.drains = False

    async def keep_until(self, condition: Callable[[Residents], bool]) -> None:
        """Look at the models until something is true of them."""
        runner = AsyncRunner(self.settings)
        residents = Residents(self.settings, self.serving, WORKER, lambda name: 0, runner)
        looking = asyncio.create_task(residents.keep(lambda: None, lambda: self.drains))
        try:
            deadline = time.monotonic() + WAIT_S
            while not condition(residents):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
        finally:
            looking.cancel()
            await runner.close()


@pytest.fixture
def device(settings: Settings, short_path: Path) -> Iterator[Device]:
    device = Device(settings, short_path)
    with listening(device.models["a"]):
        yield device


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    with Ledger(settings) as ledger:
        yield ledger


def submit(ledger: Ledger, job_id: str, model: str) -> None:
    params = f'{{"prompt": "x", "model": "{model}"}}'
    ledger.submit(Submission(job_id, Task("txt2img"), params, "", model=model))


def announce(settings: Settings, name: str, **said: object) -> None:
    with Runner(settings) as runner:
        runner.run(Workers(settings).announce(name, queues=[], **said))


def test_a_model_that_another_worker_has_claimed_keeps_no_other_from_being_loaded(
    device: Device, ledger: Ledger
) -> None:
    with Runner(device.settings) as runner:
        key = loading_key(device.settings.key_prefix, "b")
        runner.run(Leases(device.settings).hold(key, "cpu.2@there"))
    submit(ledger, "first", "b")
    submit(ledger, "second", "c")
    asyncio.run(device.keep_until(lambda residents: residents.loading == ["c"]))


def test_messages_of_plain_celery_are_seen_to_wait_too(device: Device) -> None:
    with Runner(device.settings) as runner:
        runner.redis.lpush(messages_key(device.settings.key_prefix, "txt2img.b"), "no record yet")
    asyncio.run(device.keep_until(lambda residents: residents.loading == ["b"]))


def test_a_queue_that_is_paused_is_taken_from_again_once_it_is_resumed(
    device: Device, ledger: Ledger
) -> None:
    ledger.runner.run(ledger.calls.pause("txt2img.a"))
    asyncio.run(device.keep_until(lambda residents: residents.taken == frozenset()))
    ledger.runner.run(ledger.calls.resume("txt2img.a"))
    asyncio.run(device.keep_until(lambda residents: residents.taken == {"txt2img.a"}))


def test_for_jobs_of_a_paused_queue_no_model_is_loaded(device: Device, ledger: Ledger) -> None:
    submit(ledger, "first", "b")
    ledger.runner.run(ledger.calls.pause("txt2img.b"))
    submit(ledger, "second", "c")
    asyncio.run(device.keep_until(lambda residents: residents.loading == ["c"]))


def test_a_worker_that_drains_claims_no_model(device: Device, ledger: Ledger) -> None:
    submit(ledger, "first", "b")
    looks: list[bool] = []

    def has_looked(residents: Residents) -> bool:
        looks.append(bool(residents.loading))
        return len(looks) > 50

    device.drains = True
    asyncio.run(device.keep_until(has_looked))
    assert not any(looks)
    with Runner(device.settings) as runner:
        assert not runner.redis.exists(loading_key(device.settings.key_prefix, "b"))


def test_what_a_model_needs_is_known_also_when_it_has_been_given_up(device: Device) -> None:
    def is_remembered(residents: Residents) -> bool:
        with listening(device.models["b"]):
            residents.look()
        residents.look()
        [told] = [model for model in residents.models if model.name == "b"]
        return told.peak_bytes == 600

    asyncio.run(device.keep_until(is_remembered))


def test_jobs_of_a_broken_model_wait_for_a_worker_that_may_still_load_it(
    device: Device, ledger: Ledger, settings: Settings
) -> None:
    submit(ledger, "job", "b")
    broken = Failure(code="model_invalid", message="no weights").model_dump_json()
    write_whole(broken_file(device.models["b"].socket), broken)
    announce(settings, "cpu.2@there", unloaded=["b"])
    looks: list[JobState] = []

    def has_looked(residents: Residents) -> bool:
        looks.append(ledger.get("job").state)
        return len(looks) > 20

    asyncio.run(device.keep_until(has_looked))
    assert set(looks) == {JobState.QUEUED}
    announce(settings, "cpu.2@there", failures={"b": {"code": "x", "message": "y"}})
    asyncio.run(device.keep_until(lambda _: ledger.get("job").state is JobState.FAILED))


def test_nobody_is_told_where_a_broken_models_folder_is(tmp_path: Path) -> None:
    model = a_model(tmp_path / "secret" / "turbo", "turbo")
    model.socket.parent.mkdir(parents=True)
    why = Failure(code="model_invalid", message=f"the model in {model.folder}: no weights")
    write_whole(broken_file(model.socket), why.model_dump_json())
    assert model.failure is not None
    assert model.failure.message == "the model in turbo: no weights"


def test_a_model_took_as_long_to_load_as_it_was_wanted_before(device: Device) -> None:
    state = State(device.models["b"], info("b"), wanted_at=10.0)
    state.note_loaded(14.5)
    assert state.took_s == 4.5
    state.note_gone()
    state.note_loaded(20.0)  # by a supervisor that nobody had to ask
    assert state.took_s == 0.0
