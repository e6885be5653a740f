"""Pausing queues, canceling many jobs, the order of what waits, and how long records are kept."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from crossmodal.errors import (
    IdempotencyConflict,
    InvalidParams,
    ModelNotFound,
    QueueNotFound,
    QueuePaused,
)
from crossmodal.jobs.listing import Listing
from crossmodal.jobs.names import job_key, jobs_key, messages_key
from crossmodal.jobs.origin import Origin
from crossmodal.jobs.record import JobState
from crossmodal.settings import Settings
from crossmodal.testing import FakeClient
from producer import Client, JobHandle
from producer.fake.worker import FakeWorker, plain_captions, plain_pictures
from producer.pictures.png import write_png
from worker.recovery import Recovery

IDEA = "a red circle"
PNG = write_png(b"\xff\0\0", 1, 1, 3)


@dataclass
class World:
    """A client whose jobs wait until they are `run`, and one whose paused queues take none."""

    client: Client
    run: Callable[[str], object]
    refusing: Client

    def state(self, job: JobHandle) -> JobState:
        return self.client.record(job).state


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "fake":
        with (
            FakeClient(held=True) as fake,
            FakeClient(held=True, paused_queues_accept=False) as refusing,
        ):
            yield World(fake, lambda job_id: fake.work(), refusing)
        return
    settings: Settings = request.getfixturevalue("settings")
    with Client(settings) as client, Client(settings, paused_queues_accept=False) as refusing:
        worker = FakeWorker(
            client.runner, client.ledger, client.storage, plain_pictures, plain_captions
        )
        yield World(client, worker.run, refusing)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


# -- pausing ------------------------------------------------------------------------------


def test_what_waits_in_a_paused_queue_stays_until_it_is_resumed(world: World) -> None:
    job, other = (world.client.txt2img(IDEA), world.client.submit("img2txt", image=PNG))
    assert world.client.pause("txt2img").paused
    for one in (job, other):
        world.run(one.id)
    assert world.state(job) is JobState.QUEUED
    assert world.state(other) is JobState.SUCCEEDED
    found = world.client.resume("txt2img")
    assert (found.paused, found.depth) == (False, 1)
    world.run(job.id)
    assert world.state(job) is JobState.SUCCEEDED


def test_a_paused_queue_takes_jobs_or_refuses_them_as_the_settings_say(world: World) -> None:
    world.client.pause("txt2img")
    assert world.state(world.client.txt2img(IDEA)) is JobState.QUEUED
    world.refusing.pause("txt2img")
    with pytest.raises(QueuePaused, match="the queue txt2img is paused") as raised:
        world.refusing.txt2img(IDEA)
    assert (raised.value.retryable, raised.value.retry_after_s) == (True, 60.0)


def test_a_job_of_a_paused_queue_says_what_it_waits_for(world: World) -> None:
    job = world.client.txt2img(IDEA)
    world.client.pause("txt2img")
    status = world.client.status(job)
    assert (status.waits_for, status.estimated_wait_s) == ("txt2img to be resumed", None)


def test_a_name_that_no_queue_has_is_told_with_the_one_that_was_meant(world: World) -> None:
    for act in (world.client.pause, world.client.resume):
        with pytest.raises(QueueNotFound, match="'txt2imf': did you mean 'txt2img'"):
            act("txt2imf")


def test_asked_twice_a_queue_is_paused_once(world: World) -> None:
    world.client.pause("txt2img")
    world.client.pause("txt2img")
    assert not world.client.resume("txt2img").paused
    assert not world.client.resume("txt2img").paused


def test_a_job_expires_while_its_queue_is_paused(client: Client) -> None:
    job = client.txt2img(IDEA, expires_in_s=0)
    client.pause("txt2img")
    client.run(client.ledger.start(job.id, "cpu@here"))
    assert client.record(job).state is JobState.EXPIRED


def test_a_paused_queue_is_paused_for_jobs_of_keys_and_loses_none_of_them(client: Client) -> None:
    sent = [client.submit("txt2img", prompt=IDEA, origin=Origin("heavy")) for _ in range(40)]
    client.pause("txt2img")
    for job in sent:
        client.run(client.ledger.start(job.id, "cpu@here"))
    assert sum(client.record(job).held for job in sent) == 40 - client.settings.max_batch
    client.resume("txt2img")
    for job in sent:
        client.run(client.ledger.start(job.id, "cpu@here"))
    assert {client.record(job).state for job in sent} == {JobState.RUNNING}


# -- canceling many -----------------------------------------------------------------------


def test_all_jobs_of_an_owner_are_canceled_and_no_others(client: Client) -> None:
    mine = [client.submit("txt2img", prompt=IDEA, origin=Origin("a")) for _ in range(40)]
    others = [client.submit("txt2img", prompt=IDEA, origin=Origin("b")), client.txt2img(IDEA)]
    client.run(client.ledger.start(mine[0].id, "cpu@here"))
    assert client.cancel_all("a") == 40
    assert {client.record(job).state for job in mine} == {JobState.CANCELED}
    assert {client.record(job).state for job in others} == {JobState.QUEUED}
    assert client.cancel_all("a") == 0
    assert client.cancel_all(None) == 2


@pytest.mark.parametrize(
    ("asked", "canceled"),
    [
        ({"state": "running"}, {"running"}),
        ({"state": "queued"}, {"waiting", "caption", "message"}),
        ({"task": "txt2img"}, {"running", "waiting", "message"}),
        ({"task": "txt2img.bulk"}, {"message"}),
        ({"task": "img2txt", "state": "running"}, set()),
        ({}, {"running", "waiting", "caption", "message"}),
    ],
)
def test_a_filter_says_which_jobs_are_canceled(
    client: Client, asked: dict[str, Any], canceled: set[str]
) -> None:
    jobs = {
        "running": client.txt2img(IDEA).id,
        "waiting": client.txt2img(IDEA).id,
        "caption": client.img2txt(PNG).id,
        "message": "b.0",
    }
    client.run(client.ledger.start(jobs["running"], "cpu@here"))
    batch = client.calls.map_txt2img([IDEA], batch_id="b")
    while not client.queue("txt2img.bulk").depth:
        client.run(batch.turn())
    assert client.cancel_all(**asked) == len(canceled)
    states = {name: client.record(job).state for name, job in jobs.items()}
    assert {name for name, state in states.items() if state is JobState.CANCELED} == canceled


def test_no_more_is_taken_of_a_batch_whose_messages_were_canceled(client: Client) -> None:
    batch = client.calls.map_txt2img([IDEA], batch_id="b")
    while not client.queue("txt2img.bulk").depth:
        client.run(batch.turn())
    assert client.cancel_all(task="txt2img") == 1
    assert client.run(client.calls.batches.is_canceled("b"))


def test_what_ended_and_is_still_listed_keeps_nobody_from_being_done(
    client: Client, admin: Any
) -> None:
    job = client.txt2img(IDEA)
    job.cancel()
    admin.zadd(f"{client.settings.key_prefix}:queue:txt2img:queued", {job.id: 1.0})
    client.txt2img(IDEA)
    assert client.cancel_all() == 1


def test_what_cannot_be_canceled_is_refused(client: Client) -> None:
    with pytest.raises(InvalidParams, match=r"state is 'failed' .*: give one of queued, running"):
        client.cancel_all(state="failed")
    with pytest.raises(ModelNotFound, match="no model is called 'turbo'"):
        client.cancel_all(model="turbo")


# -- the order of what waits --------------------------------------------------------------


def test_jobs_of_nobody_are_ordered_in_the_queue(client: Client, admin: Any) -> None:
    sent = {p: client.txt2img(IDEA, priority=p).id for p in (-1, 0, 1)}
    lists = [messages_key(client.settings.key_prefix, "txt2img", list_) for list_ in (-1, 0, 9)]
    texts = [admin.lrange(key, 0, -1) for key in lists]
    assert [len(found) for found in texts] == [1, 1, 1]
    for job_id, [text] in zip((sent[1], sent[0], sent[-1]), texts, strict=True):
        assert job_id in text


def test_a_lost_message_comes_back_in_the_list_of_its_priority(client: Client, admin: Any) -> None:
    job = client.txt2img(IDEA, priority=1)
    key = messages_key(client.settings.key_prefix, "txt2img", -1)
    admin.delete(key)
    recovery = Recovery(client.settings, ["txt2img"], client.runner)
    admin.zadd(f"{client.settings.key_prefix}:queue:txt2img:queued", {job.id: 1.0})
    admin.hset(job_key(client.settings.key_prefix, job.id), "created_at", "1.0")
    recovery.recover()
    assert admin.llen(key) == 1


@pytest.mark.parametrize("other", [{"priority": 1}, {"keep_s": 60}])
def test_another_priority_or_retention_is_another_request(
    client: Client, other: dict[str, Any]
) -> None:
    origin = Origin("somebody")
    ask = partial(client.submit, "txt2img", prompt=IDEA, seed=1, origin=origin)
    job = ask(idempotency_key="somebody:once")
    assert ask(idempotency_key="somebody:once").id == job.id
    with pytest.raises(IdempotencyConflict, match="the idempotency key 'once' belongs"):
        ask(idempotency_key="somebody:once", **other)


@pytest.mark.parametrize("priority", [2, 0.5, True, "1", None])
def test_other_priorities_are_refused(client: Client, priority: Any) -> None:
    with pytest.raises(InvalidParams, match=r"priority is .*: give -1, 0 or 1"):
        client.txt2img(IDEA, priority=priority)


def test_a_job_that_is_run_again_keeps_its_priority_and_retention(client: Client) -> None:
    job = client.txt2img(IDEA, priority=-1, keep_s=600)
    job.cancel()
    again = client.record(client.retry(job))
    assert (again.priority, again.keep_s) == (-1, 600)


# -- how long records are kept ------------------------------------------------------------


@pytest.mark.parametrize("keep_s", [60, 30 * 86_400])
@pytest.mark.parametrize("owner", ["", "somebody"])
def test_a_record_is_kept_as_long_as_its_submitter_said(
    client: Client, admin: Any, keep_s: float, owner: str
) -> None:
    job = client.submit(
        "txt2img", prompt=IDEA, keep_s=keep_s, idempotency_key="once", origin=Origin(owner)
    )
    job.cancel()
    prefix = client.settings.key_prefix
    keys = (job_key(prefix, job.id), f"{prefix}:idempotency:once", jobs_key(prefix, owner))
    for key in keys:
        assert keep_s - 5 <= admin.ttl(key) <= keep_s + 1, key


def test_a_job_that_is_kept_for_longer_stays_on_its_owners_list(
    settings: Settings, admin: Any
) -> None:
    with Client(settings, retention_s=60) as client:
        long = client.txt2img(IDEA, keep_s=86_400)
        long.cancel()
        key = jobs_key(settings.key_prefix, "") + ":ended"
        admin.zadd(key, {long.id: admin.zscore(key, long.id) - 3_600})  # an hour later
        client.txt2img(IDEA).cancel()
        page = client.run(Listing(settings, client.ledger).page(""))
        assert long.id in {job.id for job in page.jobs}


@pytest.mark.parametrize("keep_s", [0, -1, 31_536_001, float("nan"), "long"])
def test_other_retentions_are_refused(client: Client, keep_s: Any) -> None:
    with pytest.raises(InvalidParams, match="keep_s is"):
        client.txt2img(IDEA, keep_s=keep_s)
