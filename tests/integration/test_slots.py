"""No message takes a slot for ever, not even by a fault that nobody knows yet."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from crossmodal.jobs.dead import DeadLetters
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.message import message_of
from crossmodal.jobs.names import messages_key
from crossmodal.jobs.record import DeadLetter
from crossmodal.jobs.runners import Runner
from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import Txt2ImgParams
from tests.servers import Server
from tests.toys import ToyWorker, toys_of
from tests.waiting import until
from worker.beat import age_s

ROOM = 2
WAIT_S = 60
STRAY = "lost inside the worker"
SILENT_S = 4  # beats that are left out


@pytest.fixture(scope="module")
def shared(redis_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToyWorker]:
    folder = tmp_path_factory.mktemp("slots")
    more = {"CROSSMODAL_SWEEP_S": "0.5", "CROSSMODAL_HEARTBEAT_FILE": str(folder / "beat")}
    with toys_of(redis_server, "slots", folder, ROOM, 2, **more) as worker:
        yield worker


@pytest.fixture
def worker(shared: ToyWorker) -> Iterator[ToyWorker]:
    """A worker that does a toy, and has no message in hand, after whatever it was sent."""
    yield shared
    toy = shared.send()
    until(lambda: shared.made[toy] == 1, WAIT_S, "a toy after all")
    until(lambda: shared.in_hand == 0, WAIT_S, "the end of all")


def letters(worker: ToyWorker) -> tuple[DeadLetter, ...]:
    settings = worker.settings
    with Runner(settings) as runner:
        return runner.run(DeadLetters(settings, JobLedger(settings)).list())


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "sent",
    [
        {"what": nested(500)},
        {"what": nested(500), "task": Task("img2txt.bulk")},
        {"what": nested(500), "queue": "celery"},
        {"fault": "lose it"},
        {"fault": "raise it"},
        {"fault": "raise it", "after_s": 0.5},
    ],
    ids=[
        "nested deep",
        "nested in bulk",
        "nested and plain",
        "lost by Celery",
        "an exception",
        "an exception in a timer",
    ],
)
def test_a_message_that_nobody_can_run_is_set_aside_and_frees_its_slot(
    worker: ToyWorker, sent: dict[str, Any]
) -> None:
    before = len(letters(worker))
    for _ in range(ROOM + 1):
        worker.send(**sent)
    until(lambda: len(letters(worker)) == before + ROOM + 1, WAIT_S, "the dead letters")
    assert {letter.code for letter in letters(worker)} == {"invalid_message"}


def test_a_message_that_is_lost_once_is_given_out_again(worker: ToyWorker) -> None:
    toy = worker.send(fault="lose it once")
    until(lambda: worker.made[toy] == 1, WAIT_S, "the toy")


def test_a_message_that_came_again_for_another_reason_may_be_lost_once(worker: ToyWorker) -> None:
    """As after an outage of the store, or the death of another worker."""
    message = json.loads(message_of("again", Txt2ImgParams(prompt="a circle", seed=1)))
    message["headers"]["kwargsrepr"] = "lose it once"
    message["properties"]["delivery_info"]["redelivered"] = True
    worker.redis.lpush(messages_key(worker.settings.key_prefix, "txt2img"), json.dumps(message))
    until(lambda: worker.made["again"] == 1, WAIT_S, "the toy")


def test_a_message_that_waits_for_its_time_is_not_lost(worker: ToyWorker) -> None:
    before = worker.log.count(STRAY)
    toy = worker.send(after_s=4)
    until(lambda: worker.made[toy] == 1, WAIT_S, "the toy")
    assert worker.log.count(STRAY) == before


def test_a_worker_whose_jobs_have_their_turn_and_never_start_is_not_live(shared: ToyWorker) -> None:
    beat = shared.folder / "beat"
    until(lambda: (age_s(beat) or 0.0) < SILENT_S / 2 and beat.exists(), WAIT_S, "a heartbeat")
    shared.send(fault="forget it")
    until(lambda: (age_s(beat) or 0.0) > SILENT_S, WAIT_S, "the end of its heartbeat")
