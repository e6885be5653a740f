"""Who has the password of Redis can have jobs run, and nothing else: from the attacker's seat."""

import base64
import json
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import Celery
from celery.worker.control import Panel

from crossmodal.jobs.message import message_of
from crossmodal.jobs.names import new_job_id
from crossmodal.jobs.record import DeadLetter, JobState
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.txt2img import Txt2ImgParams
from producer import Client, JobFailed
from tests.at_once import at_once
from tests.conftest import RunningStack
from tests.unit.test_no_pickle import Payload
from tests.waiting import until
from tests.workers import suspended
from worker.celery.control import ALLOWED

PROMPT = "a large red circle on a white background"
WAIT_S = 60
BUILTIN = (
    "accumulate",
    "backend_cleanup",
    "chain",
    "chord",
    "chord_unlock",
    "chunks",
    "group",
    "map",
    "starmap",
)
EVIL: dict[str, Any] = {
    "task": "crossmodal.txt2img",
    "args": [],
    "kwargs": {"prompt": PROMPT},
    "options": {"queue": "elsewhere"},
    "subtask_type": None,
    "immutable": True,
}
COMMANDS: dict[str, dict[str, Any]] = {
    "add_consumer": {"queue": "evil"},
    "autoscale": {"max": 100, "min": 100},
    "cancel_consumer": {"queue": "txt2img"},
    "memdump": {},
    "pool_grow": {"n": 5},
    "pool_restart": {"modules": ["antigravity"], "reload": True},
    "pool_shrink": {"n": 5},
    "rate_limit": {"task_name": "crossmodal.txt2img", "rate_limit": "1/h"},
    "revoke_by_stamped_headers": {"headers": {"x": "y"}, "terminate": True},
    "shutdown": {},
    "terminate": {"signal": "KILL", "task_id": ["x"]},
    "time_limit": {"task_name": "crossmodal.txt2img", "hard": 1},
}


@pytest.fixture
def attacker(stack: RunningStack) -> Iterator[Celery]:
    """Celery as anybody with the broker's URL may have it."""
    with Celery(broker=stack.server.admin_url) as app:
        yield app


@pytest.fixture
def redis(stack: RunningStack) -> Iterator[Any]:
    """A connection that may do anything; producers and workers have fewer rights."""
    with stack.server.admin() as redis:
        yield redis


@pytest.fixture(autouse=True)
def _workers_are_unharmed(client: Client, stack: RunningStack, redis: Any) -> Iterator[None]:
    """After every attack the same processes as before draw as before, at the first attempt."""
    before = stack.processes()
    yield
    assert client.txt2img(PROMPT, seed=7).result(timeout_s=WAIT_S).attempt == 1
    assert stack.processes() == before
    assert redis.llen("elsewhere") == 0


def letters(client: Client) -> dict[str, DeadLetter]:
    return {letter.id: letter for letter in client.dead_letters.list()}


def sent(client: Client, redis: Any, message: dict[str, Any], queue: str = "txt2img") -> DeadLetter:
    """The dead letter that a message becomes."""
    before = set(letters(client))
    redis.lpush(queue, json.dumps(message))
    until(lambda: len(set(letters(client)) - before) == 1, WAIT_S, "the dead letter")
    [letter] = set(letters(client)) - before
    return letters(client)[letter]


def envelope(embed: dict[str, Any] | None = None, **headers: Any) -> dict[str, Any]:
    params = Txt2ImgParams(prompt=PROMPT, seed=7)
    message: dict[str, Any] = json.loads(message_of(new_job_id(), params))
    message["headers"] = {k: v for k, v in message["headers"].items() if k != "recorded"} | headers
    call = [[], {"prompt": PROMPT}, embed or {}]
    message["body"] = base64.b64encode(json.dumps(call).encode()).decode()
    return message


def test_builtin_tasks_are_unknown(client: Client, redis: Any) -> None:
    for name in BUILTIN:
        task = f"celery.{name}"
        letter = sent(client, redis, envelope(task=task, id=new_job_id()))
        assert (letter.code, task in letter.message) == ("unknown_task", True), name


@at_once("name", ["callbacks", "errbacks", "chain", "chord"])
def test_a_job_calls_nothing_after_itself(client: Client, redis: Any, name: str) -> None:
    following: Any = EVIL if name == "chord" else [EVIL]
    assert sent(client, redis, envelope({name: following})).code == "invalid_message"
    assert sent(client, redis, envelope(**{name: following})).code == "invalid_message"


def test_a_message_cannot_say_that_it_is_run_in_place(client: Client, redis: Any) -> None:
    for embed, headers in (({"is_eager": True}, {}), ({}, {"is_eager": True}), ({"id": "x"}, {})):
        assert sent(client, redis, envelope(embed, **headers)).code == "invalid_message"


def test_a_pickle_is_not_read(
    client: Client, redis: Any, stack: RunningStack, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    body = base64.b64encode(pickle.dumps([(), {"prompt": Payload(canary)}, {}])).decode()
    message = envelope() | {"content-type": "application/x-python-serialize", "body": body}
    assert sent(client, redis, message).code == "invalid_message"
    size = stack.log.stat().st_size
    for channel in ("/0.celery.pidbox", "/0.celeryev/worker.heartbeat"):
        redis.publish(channel, json.dumps(message))
    said = b"Refusing to deserialize"
    until(lambda: said in stack.log.read_bytes()[size:], WAIT_S, "the refusal")
    assert not canary.exists()


def test_remote_control_does_no_more_than_it_must(
    attacker: Celery, client: Client, stack: RunningStack
) -> None:
    inspect = attacker.control.inspect(timeout=30, limit=1)
    before = inspect.active_queues()
    assert len(before) == 1
    assert set(COMMANDS) | {"objgraph", "memsample", "election"} >= {
        name for name in Panel.meta if name not in ALLOWED
    }
    for name, arguments in COMMANDS.items():
        said = attacker.control.broadcast(
            name, arguments=arguments, reply=True, limit=1, timeout=30
        )
        answers = [answer for one in said for answer in one.values()]
        assert [set(answer) for answer in answers] == [{"error"}], name
    assert inspect.active_queues() == before


def test_what_comes_over_the_plain_queue_is_checked_like_any(client: Client, redis: Any) -> None:
    letter = sent(client, redis, envelope(task="celery.map"), client.settings.plain_queue)
    assert letter.code == "unknown_task"


def test_who_revokes_a_running_job_cancels_it_and_kills_nothing(
    attacker: Celery, client: Client, stack: RunningStack
) -> None:
    host = stack.model_host
    with suspended(host):
        job = client.txt2img(PROMPT, seed=1)
        until(lambda: client.status(job.id).state is JobState.RUNNING, WAIT_S)
        attacker.control.revoke(job.id, terminate=True, signal="SIGKILL")
        until(lambda: client.status(job.id).state is JobState.CANCELED, WAIT_S)
    assert psutil.pid_exists(host.pid)


def test_garbage_among_the_messages_in_hand_blocks_nobody(client: Client, redis: Any) -> None:
    for tag, raw in (("t1", "garbage"), ("t2", "[]"), ("t3", json.dumps([{"body": 1}, "x", "y"]))):
        redis.hset("unacked", tag, raw)
        redis.zadd("unacked_index", {tag: time.time() - 3_600})
    until(lambda: not redis.hkeys("unacked"), WAIT_S, "the sweep")  # it keeps what it removes
    found = [letter.queue for letter in letters(client).values()]
    assert found.count("") >= 2  # from which queue, nobody knows


@at_once(
    "key",
    [
        "../../../../../etc/passwd",
        "/etc/passwd",
        "inputs/../../x",
        "results/%2e%2e/%2e%2e/x",
        "file:///etc/passwd",
    ],
)
def test_a_key_does_not_lead_out_of_the_store(
    attacker: Celery, client: Client, redis: Any, key: str
) -> None:
    kwargs = {"image": BlobRef.model_construct(key=key).model_dump(exclude_unset=True)}
    job = attacker.send_task("crossmodal.img2txt", kwargs=kwargs)
    until(lambda: redis.exists(f"crossmodal:job:{job.id}") == 1, WAIT_S)
    with pytest.raises(JobFailed) as caught:
        client.job(job.id).result(timeout_s=WAIT_S)
    assert caught.value.code in ("blob_not_found", "invalid_params")
    assert "root:" not in str(caught.value)
