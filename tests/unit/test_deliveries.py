"""Deliveries of webhooks in Redis: who may try one when, and what becomes of it."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from crossmodal.errors import DeliveryNotFound
from crossmodal.jobs import webhooks
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import delivery_key, new_job_id, webhooks_key
from crossmodal.jobs.origin import Origin, Webhook
from crossmodal.jobs.record import Delivery
from crossmodal.jobs.runners import Runner
from crossmodal.jobs.submission import Submission
from crossmodal.jobs.webhooks import MAX_OF_OWNER, RETRIES_S, Deliveries
from crossmodal.kinds.task import Task
from crossmodal.settings import Settings
from tests.waiting import until

HOOK = Webhook(url="https://receiver.example/hooks", base="https://gateway.example")
ALL = 1_000

Make = Callable[..., Delivery]


@pytest.fixture
def runner(settings: Settings) -> Iterator[Runner]:
    runner = Runner(settings)
    yield runner
    runner.close()


@pytest.fixture
def deliveries(settings: Settings) -> Deliveries:
    return Deliveries(settings)


@pytest.fixture
def pending(settings: Settings) -> str:
    return webhooks_key(settings.key_prefix, "pending")


@pytest.fixture
def make(settings: Settings, deliveries: Deliveries, runner: Runner) -> Make:
    """A delivery of a job that was canceled."""

    def made(owner: str = "") -> Delivery:
        ledger, job_id = JobLedger(settings), new_job_id()
        origin = Origin(owner, webhook=HOOK)
        runner.run(ledger.submit(Submission(job_id, Task("txt2img"), "{}", "", origin=origin)))
        runner.run(ledger.cancel(job_id))
        [delivery] = runner.run(deliveries.list(owner, 10, job_id))
        return delivery

    return made


def claimed(runner: Runner, deliveries: Deliveries, max_count: int = ALL) -> list[str]:
    return [delivery.id for delivery in runner.run(deliveries.claim_due(max_count))]


def test_a_delivery_is_due_at_once_and_claimed_by_one(
    deliveries: Deliveries, make: Make, runner: Runner
) -> None:
    delivery = make()
    assert runner.run(deliveries.claim_due(ALL)) == [delivery]
    assert claimed(runner, deliveries) == []


def test_those_that_wait_longest_are_claimed_first(
    deliveries: Deliveries, make: Make, runner: Runner
) -> None:
    made = [make().id for _ in range(5)]
    assert claimed(runner, deliveries, 2) == made[:2]
    assert claimed(runner, deliveries) == made[2:]


def test_one_whose_sender_has_died_is_due_again(
    settings: Settings, make: Make, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MARGIN_S", 1 - settings.webhook_timeout_s)
    deliveries, delivery = Deliveries(settings), make()
    assert claimed(runner, deliveries) == [delivery.id]
    until(lambda: claimed(runner, deliveries) == [delivery.id], 30, "the end of the claim")


def test_a_claim_is_longer_than_a_post_and_ends_within_twenty_seconds(settings: Settings) -> None:
    assert settings.webhook_timeout_s + 1 < Deliveries(settings).claim_s <= 20


def test_few_of_one_owner_are_tried_at_once(
    deliveries: Deliveries, make: Make, runner: Runner
) -> None:
    of_me = [make("me") for _ in range(MAX_OF_OWNER + 1)]
    others = make("others")
    found = claimed(runner, deliveries)
    assert found == [*(d.id for d in of_me[:MAX_OF_OWNER]), others.id]
    assert claimed(runner, deliveries) == []
    runner.run(deliveries.note(of_me[0], 200, None))
    assert claimed(runner, deliveries) == [of_me[-1].id]


def test_many_of_a_busy_owner_hide_nobody_elses(
    deliveries: Deliveries, make: Make, runner: Runner, pending: str, settings: Settings
) -> None:
    for _ in range(MAX_OF_OWNER):
        make("me")
    assert len(claimed(runner, deliveries)) == MAX_OF_OWNER
    key = delivery_key(settings.key_prefix, "")
    crowd = [f"wh_{n}" for n in range(1_000)]
    with runner.redis.pipeline() as pipe:
        for name in crowd:
            pipe.hset(key + name, "owner", "me")
        pipe.zadd(pending, dict.fromkeys(crowd, time.time() - 10))
        pipe.execute()
    other = make("other")
    assert claimed(runner, deliveries) == []
    assert claimed(runner, deliveries) == [other.id]


def test_a_failed_try_puts_it_off(deliveries: Deliveries, make: Make, runner: Runner) -> None:
    make()
    [delivery] = runner.run(deliveries.claim_due(ALL))
    told = runner.run(deliveries.note(delivery, 503, "the receiver answered 503"))
    assert (told.outcome, told.tries) == ("pending", 1)
    assert told.next_at is not None
    assert told.tried_at is not None
    assert RETRIES_S[0] * 0.99 <= told.next_at - told.tried_at <= RETRIES_S[0] * 1.26
    assert claimed(runner, deliveries) == []
    assert runner.run(deliveries.get(told.id)) == told


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(204, "delivered"), (410, "failed"), (302, "pending"), (None, "pending")],
)
def test_the_answer_decides_what_becomes_of_it(
    deliveries: Deliveries, make: Make, runner: Runner, status: int | None, outcome: str
) -> None:
    assert runner.run(deliveries.note(make(), status, None)).outcome == outcome
    counts = runner.run(deliveries.counts())
    assert counts["retried" if outcome == "pending" else outcome] == 1
    assert counts["pending"] == (outcome == "pending")


def test_it_is_given_up_after_the_last_try(
    deliveries: Deliveries, make: Make, runner: Runner
) -> None:
    told = make()
    for _ in range(len(RETRIES_S)):
        told = runner.run(deliveries.note(told, 500, "it answered 500"))
        assert told.outcome == "pending"
    told = runner.run(deliveries.note(told, 500, "it answered 500"))
    assert told.outcome == "failed"
    assert claimed(runner, deliveries) == []
    assert runner.run(deliveries.counts())["failed"] == 1


def test_a_record_that_has_expired_does_not_come_back(
    deliveries: Deliveries, make: Make, runner: Runner, settings: Settings
) -> None:
    delivery = make()
    key = delivery_key(settings.key_prefix, delivery.id)
    runner.redis.delete(key)
    runner.run(deliveries.note(delivery, 500, "it answered 500"))
    assert not runner.redis.exists(key)
    assert claimed(runner, deliveries) == []
    assert runner.run(deliveries.counts())["pending"] == 0
    with pytest.raises(DeliveryNotFound):
        runner.run(deliveries.get(delivery.id))
    assert runner.run(deliveries.list("", 10)) == []


def test_one_whose_record_is_gone_is_counted_as_failed(
    deliveries: Deliveries, make: Make, runner: Runner, settings: Settings
) -> None:
    runner.redis.delete(delivery_key(settings.key_prefix, make().id))
    assert claimed(runner, deliveries) == []
    counts = runner.run(deliveries.counts())
    assert (counts["failed"], counts["pending"]) == (1, 0)


def test_one_that_cannot_be_read_keeps_no_other_waiting(
    deliveries: Deliveries, make: Make, runner: Runner, settings: Settings
) -> None:
    odd, good = make(), make()
    runner.redis.hdel(delivery_key(settings.key_prefix, odd.id), "url")
    assert claimed(runner, deliveries) == [good.id]


def test_deliveries_that_nobody_tried_are_forgotten_with_their_records(
    deliveries: Deliveries, make: Make, runner: Runner, pending: str, settings: Settings
) -> None:
    delivery = make()
    runner.redis.zadd(pending, {delivery.id: time.time() - settings.retention_s - 1})
    assert runner.run(deliveries.counts())["pending"] == 1
    kept = make()
    assert runner.redis.zrange(pending, 0, -1) == [kept.id]
    assert runner.run(deliveries.counts())["failed"] == 1


def test_it_is_kept_until_all_tries_are_over_however_short_the_retention(
    settings: Settings, runner: Runner, admin: Any
) -> None:
    brief = settings.model_copy(update={"retention_s": 60})
    ledger, deliveries, job_id = JobLedger(brief), Deliveries(brief), new_job_id()
    runner.run(
        ledger.submit(Submission(job_id, Task("txt2img"), "{}", "", origin=Origin(webhook=HOOK)))
    )
    runner.run(ledger.cancel(job_id))
    [delivery] = runner.run(deliveries.list("", 10))
    key = delivery_key(settings.key_prefix, delivery.id)
    runner.run(deliveries.note(delivery, 500, "it answered 500"))
    assert admin.ttl(key) > 1.25 * sum(RETRIES_S)
    runner.run(deliveries.note(delivery, 200, None))
    assert 0 < admin.ttl(key) <= 60


def test_an_owners_latest_come_first_and_no_more_than_were_asked_for(
    deliveries: Deliveries, make: Make, runner: Runner
) -> None:
    made = [make("me").id for _ in range(3)]
    make("other")
    assert [d.id for d in runner.run(deliveries.list("me", 2))] == [made[2], made[1]]
