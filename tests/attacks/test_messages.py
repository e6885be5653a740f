"""No message ends a worker or makes it deaf, whatever it contains."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from crossmodal.jobs.dead import DeadLetters
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.message import message_of
from crossmodal.jobs.names import EXPIRES_HEADER, messages_key
from crossmodal.jobs.runners import Runner
from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import Txt2ImgParams
from tests.servers import Server
from tests.toys import ToyWorker, toys_of
from tests.waiting import until
from worker.beat import age_s

WAIT_S = 60
SILENT_S = 10.0  # a worker is killed after `heartbeat_s` (15) and the 5 s that Redis has
FLOOD = 1_500
BYTES = {"__type__": "bytes", "__value__": "AAAA"}  # kombu's JSON decodes this to bytes


@pytest.fixture(scope="module")
def worker(redis_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToyWorker]:
    folder = tmp_path_factory.mktemp("odd")
    more = {"CROSSMODAL_HEARTBEAT_FILE": str(folder / "beat")}
    with toys_of(redis_server, "odd", folder, 2, 2, **more) as worker:
        yield worker


def put(worker: ToyWorker, body: Any = None, count: int = 1, **headers: Any) -> None:
    """Send messages with a given body and headers; wait until all are set aside."""
    message = json.loads(message_of("odd", Txt2ImgParams(prompt="a", seed=1)))
    message["headers"] |= headers
    if body is not None:
        message["body"], message["properties"]["body_encoding"] = json.dumps(body), None
    key = messages_key(worker.settings.key_prefix, str(Task("txt2img")))
    dead = DeadLetters(worker.settings, JobLedger(worker.settings))
    with Runner(worker.settings) as runner:
        before = runner.run(dead.count())
        worker.redis.lpush(key, *[json.dumps(message)] * count)
        until(lambda: runner.run(dead.count()) == before + count, WAIT_S, "the dead letters")


def runs(worker: ToyWorker) -> bool:
    toy = worker.send()
    until(lambda: worker.made[toy] == 1, WAIT_S, "the next one")
    return worker.process.is_alive


@pytest.mark.parametrize(
    "body", [[[], {}, BYTES], [[], BYTES, {}], [BYTES, {}, {}]], ids=["embed", "kwargs", "args"]
)
def test_a_call_that_is_decoded_to_something_else_is_set_aside(
    worker: ToyWorker, body: list[Any]
) -> None:
    """A dictionary may stand for bytes: it once ended every worker that took the message."""
    put(worker, body)
    assert runs(worker)


@pytest.mark.parametrize(
    "headers",
    [
        {"eta": "9999-12-31T23:59:59-14:00"},
        {"expires": "0001-01-01T00:00:00+14:00"},
        {EXPIRES_HEADER: "soon"},
        {EXPIRES_HEADER: [1]},
    ],
    ids=str,
)
def test_a_time_that_is_none_is_set_aside(worker: ToyWorker, headers: dict[str, Any]) -> None:
    """Celery would drop the message, or the job fail for an internal error."""
    put(worker, **headers)
    assert runs(worker)


def test_a_flood_of_garbage_does_not_silence_the_heartbeat(worker: ToyWorker) -> None:
    """Each message once left a timer behind, due before that of the heartbeat."""
    put(worker, count=FLOOD, properties=1)
    age = age_s(worker.folder / "beat")
    assert age is not None
    assert age < SILENT_S
    assert runs(worker)


def test_thousands_that_are_due_at_once_do_not_silence_the_heartbeat(worker: ToyWorker) -> None:
    """The hub fires few timers in a turn, and that of the heartbeat is one of them."""
    toys = [worker.send(after_s=5) for _ in range(FLOOD)]
    ages: list[float] = []

    def is_done() -> bool:
        ages.append(age_s(worker.folder / "beat") or 0.0)
        return worker.made.keys() >= set(toys)

    until(is_done, WAIT_S, "all that were due")
    assert max(ages) < SILENT_S
