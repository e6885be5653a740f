"""Jobs whose message is nowhere any more get another; all others are left alone."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from crossmodal.jobs.ledger import Attempt
from crossmodal.jobs.message import job_of, message_of
from crossmodal.jobs.names import celery_prefix, job_key, messages_key, new_job_id, queue_key
from crossmodal.jobs.origin import Origin
from crossmodal.jobs.runners import Runner
from crossmodal.jobs.submission import Submission
from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.settings import Settings
from tests.ledgers import Ledger
from tests.unit.test_ledger import FAILURE, WORKER
from worker.recovery import CHUNK, PRIORITIES, UNACKED, Recovery

PARAMS = Txt2ImgParams(prompt="a circle", seed=1)


@pytest.fixture
def redis(admin: Any) -> Any:
    """For what the tests do to Redis themselves."""
    return admin


@pytest.fixture
def txt2img(settings: Settings) -> str:
    """The list of messages."""
    return messages_key(settings.key_prefix, "txt2img")


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    with Ledger(settings) as ledger:
        yield ledger


def submit(ledger: Ledger, owner: str = "", expires_in_s: float | None = None) -> str:
    job_id = new_job_id()
    message = message_of(job_id, PARAMS)
    ledger.submit(
        Submission(
            job_id,
            Task("txt2img"),
            PARAMS.model_dump_json(),
            "",
            message=message,
            origin=Origin(owner),
            expires_in_s=expires_in_s,
        )
    )
    return job_id


def grow_old(settings: Settings, redis: Any, job_id: str, by_s: int = 3_600) -> None:
    """Let the job's record be an hour old, or so many seconds."""
    key = job_key(settings.key_prefix, job_id)
    for field in ("created_at", "started_at", "sent_at"):
        if found := redis.hget(key, field):
            redis.hset(key, field, f"{float(found) - by_s:.6f}")
    for part in ("queued", "running"):
        redis.zincrby(queue_key(settings.key_prefix, "txt2img", part), -by_s, job_id)
        redis.zremrangebyscore(queue_key(settings.key_prefix, "txt2img", part), -by_s, -by_s)


def sent_again(
    settings: Settings, redis: Any, queues: tuple[str, ...] = ("txt2img", "img2txt")
) -> list[str]:
    """The jobs of the messages that a recovery adds."""
    txt2img = messages_key(settings.key_prefix, "txt2img")
    before = redis.lrange(txt2img, 0, -1)
    with Runner(settings) as runner:
        Recovery(settings, queues, runner).recover()
    added = redis.lrange(txt2img, 0, -1)
    for message in before:
        added.remove(message)
    return [job_of(message.encode()) or "" for message in added]


@pytest.mark.parametrize("by_s", [3_600, -3_600], ids=["old", "of before the clock was put back"])
def test_a_queued_job_without_a_message_gets_one(
    settings: Settings, ledger: Ledger, redis: Any, txt2img: str, by_s: int
) -> None:
    lost, kept = submit(ledger), submit(ledger)
    redis.rpop(txt2img)  # as a worker that died before it noted what it had taken
    for job_id in (lost, kept):
        grow_old(settings, redis, job_id, by_s)
    assert sent_again(settings, redis) == [lost]
    assert sent_again(settings, redis) == []


def test_a_job_whose_message_a_worker_holds_is_left_alone(
    settings: Settings, ledger: Ledger, redis: Any, txt2img: str
) -> None:
    job_id = submit(ledger)
    message = json.loads(redis.rpop(txt2img))
    unacked = celery_prefix(settings.key_prefix) + UNACKED
    redis.hset(unacked, "tag", json.dumps([message, "", "txt2img"]))
    grow_old(settings, redis, job_id)
    assert sent_again(settings, redis) == []


@pytest.fixture
def lost_behind_held(
    settings: Settings, ledger: Ledger, redis: Any, txt2img: str, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A job whose message is lost, and before it far more held ones than are looked at."""
    monkeypatch.setattr("worker.recovery.HEAD", 2 * settings.max_batch)
    monkeypatch.setattr("worker.recovery.CHUNK", 10)
    heavy = [submit(ledger, "heavy") for _ in range(100)]
    lost = submit(ledger, "light")
    redis.lpop(txt2img)
    for job_id in [*heavy, lost]:
        grow_old(settings, redis, job_id)
    return lost


def test_a_lost_message_is_found_behind_many_that_wait_for_their_owners_turn(
    settings: Settings, redis: Any, lost_behind_held: str
) -> None:
    assert sent_again(settings, redis) == [lost_behind_held]


def test_one_look_passes_over_so_many_held_jobs_and_the_next_goes_on_there(
    settings: Settings,
    redis: Any,
    txt2img: str,
    lost_behind_held: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.recovery.MOST_PASSED", 40)
    runner = Runner(settings)
    recovery = Recovery(settings, ["txt2img"], runner)
    for _ in range(2):  # after the last, it begins with the oldest again
        sent = redis.llen(txt2img)
        for _ in range(2):
            recovery.recover()
        assert redis.llen(txt2img) == sent
        recovery.recover()
        assert job_of(redis.rpop(txt2img).encode()) == lost_behind_held
        redis.hdel(job_key(settings.key_prefix, lost_behind_held), "sent_at")
    runner.close()


def test_a_held_job_whose_time_is_up_expires(
    settings: Settings, ledger: Ledger, redis: Any
) -> None:
    for _ in range(settings.max_batch):
        submit(ledger, "heavy")
    held = submit(ledger, "heavy", expires_in_s=0)
    grow_old(settings, redis, held)
    assert sent_again(settings, redis) == []
    assert ledger.queue("txt2img").finished == {"expired": 1}


def test_a_message_far_down_a_long_queue_is_found(
    settings: Settings, ledger: Ledger, redis: Any, txt2img: str
) -> None:
    job_id = submit(ledger)
    redis.rpush(txt2img, *(["{}"] * (2 * CHUNK)))  # all of them before it
    grow_old(settings, redis, job_id)
    assert sent_again(settings, redis) == []


def test_a_young_job_is_given_time(
    settings: Settings, ledger: Ledger, redis: Any, txt2img: str
) -> None:
    submit(ledger)
    redis.rpop(txt2img)
    assert sent_again(settings, redis) == []


@pytest.mark.parametrize("alive", [True, False])
def test_a_running_job_gets_a_message_only_when_its_attempt_has_died(
    settings: Settings, ledger: Ledger, redis: Any, alive: bool, txt2img: str
) -> None:
    job_id = submit(ledger)
    redis.rpop(txt2img)
    assert isinstance(ledger.start(job_id, WORKER), Attempt)
    if not alive:
        ledger.abandon(WORKER, [job_id])
    grow_old(settings, redis, job_id)
    assert sent_again(settings, redis) == ([] if alive else [job_id])


def test_a_job_that_was_just_released_is_given_time(
    settings: Settings, ledger: Ledger, redis: Any, txt2img: str
) -> None:
    job_id = submit(ledger)
    redis.rpop(txt2img)
    grow_old(settings, redis, job_id)
    attempt = ledger.start(job_id, WORKER)
    assert isinstance(attempt, Attempt)
    ledger.release(attempt, FAILURE)
    assert sent_again(settings, redis) == []


def test_a_job_whose_record_was_deleted_leaves_the_queue(
    settings: Settings, ledger: Ledger, redis: Any
) -> None:
    job_id = submit(ledger)
    grow_old(settings, redis, job_id)
    redis.delete(job_key(settings.key_prefix, job_id))
    assert sent_again(settings, redis) == []
    assert ledger.queue("txt2img").depth == 0


def test_a_job_whose_time_is_up_expires_also_when_nobody_asks(
    settings: Settings, ledger: Ledger, redis: Any
) -> None:
    job_id = new_job_id()
    ledger.submit(Submission(job_id, Task("txt2img"), PARAMS.model_dump_json(), "", expires_in_s=0))
    grow_old(settings, redis, job_id)
    assert sent_again(settings, redis) == []
    assert ledger.queue("txt2img").finished == {"expired": 1}


def test_the_queues_of_other_workers_are_left_alone(
    settings: Settings, ledger: Ledger, redis: Any, txt2img: str
) -> None:
    lost = submit(ledger)
    redis.rpop(txt2img)
    grow_old(settings, redis, lost)
    assert sent_again(settings, redis, queues=("img2txt", "celery")) == []
    assert sent_again(settings, redis, queues=("txt2img",)) == [lost]


@pytest.mark.parametrize("priority", PRIORITIES)
def test_a_message_of_any_priority_is_found(
    settings: Settings, ledger: Ledger, redis: Any, priority: int, txt2img: str
) -> None:
    job_id = submit(ledger)
    message = redis.rpop(txt2img)
    redis.lpush(messages_key(settings.key_prefix, "txt2img", priority), message)
    grow_old(settings, redis, job_id)
    assert sent_again(settings, redis) == []


def test_a_job_whose_record_cannot_be_read_keeps_no_other_from_its_message(
    settings: Settings, ledger: Ledger, redis: Any
) -> None:
    bad, unreadable, lost = (new_job_id(), submit(ledger), submit(ledger))
    ledger.submit(Submission(bad, Task("txt2img"), '{"prompt": 5}', ""))
    redis.delete(messages_key(settings.key_prefix, "txt2img"))
    for job_id in (bad, unreadable, lost):
        grow_old(settings, redis, job_id)
    redis.hset(job_key(settings.key_prefix, unreadable), "attempt", "many")
    # What is wrong with params is said by who runs the job.
    assert set(sent_again(settings, redis)) == {bad, lost}
