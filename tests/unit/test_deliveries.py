"""Deliveries of webhooks in Redis: who may try one when, and what becomes of it."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from crossmodal.jobs.connection import connect
from crossmodal.jobs.names import (
    WEBHOOK_QUEUE,
    Task,
    delivery_key,
    messages_key,
    new_job_id,
    webhooks_key,
)
from crossmodal.jobs.origin import Origin, Webhook
from crossmodal.jobs.record import Delivery
from crossmodal.jobs.webhooks import RETRIES_S, Deliveries
from crossmodal.settings import Settings
from tests.ledgers import Ledger

HOOK = Webhook(url="https://receiver.example/hooks", base="https://gateway.example")


@pytest.fixture
def redis(settings: Settings) -> Redis:
    return connect(settings)


@pytest.fixture
def deliveries(settings: Settings, redis: Redis) -> Deliveries:
    return Deliveries(settings, redis)


@pytest.fixture
def make(settings: Settings, deliveries: Deliveries) -> Callable[[], Delivery]:
    """A delivery of a job that was canceled."""

    def made() -> Delivery:
        ledger, job_id = Ledger(settings), new_job_id()
        ledger.submit(job_id, Task.TXT2IMG, "{}", "", origin=Origin(webhook=HOOK))
        ledger.cancel(job_id)
        [delivery] = deliveries.list("", 10, job_id)
        return delivery

    return made


def test_a_delivery_is_tried_by_one_at_a_time(
    deliveries: Deliveries, make: Callable[[], Delivery]
) -> None:
    delivery = make()
    assert deliveries.claim(delivery.id) is not None
    assert deliveries.claim(delivery.id) is None


def test_a_stale_message_does_not_have_it_tried_before_its_time(
    deliveries: Deliveries, make: Callable[[], Delivery]
) -> None:
    claimed = deliveries.claim(make().id)
    assert claimed is not None
    told = deliveries.note(claimed, 503, "the receiver answered 503")
    assert (told.outcome, told.tries) == ("pending", 1)
    assert told.next_at is not None
    assert told.tried_at is not None
    assert told.next_at - told.tried_at >= RETRIES_S[0] * 0.99
    assert deliveries.claim(told.id) is None
    assert deliveries.get(told.id) == told


def test_it_is_given_up_after_the_last_try(
    deliveries: Deliveries, make: Callable[[], Delivery]
) -> None:
    told = make()
    for _ in range(len(RETRIES_S)):
        told = deliveries.note(told, 500, "it answered 500")
        assert told.outcome == "pending"
    told = deliveries.note(told, 500, "it answered 500")
    assert told.outcome == "failed"
    assert deliveries.claim(told.id) is None
    assert deliveries.counts()["failed"] == 1


def test_a_record_that_has_expired_does_not_come_back(
    deliveries: Deliveries, make: Callable[[], Delivery], redis: Redis, settings: Settings
) -> None:
    delivery = make()
    key = delivery_key(settings.key_prefix, delivery.id)
    redis.delete(key)
    deliveries.note(delivery, 500, "it answered 500")
    assert not redis.exists(key)
    assert deliveries.claim(delivery.id) is None
    assert deliveries.counts()["pending"] == 0


def test_no_more_messages_wait_than_somebody_takes(
    deliveries: Deliveries, make: Callable[[], Delivery], redis: Redis, settings: Settings
) -> None:
    messages = messages_key(settings.key_prefix, WEBHOOK_QUEUE)
    redis.rpush(messages, *["x"] * 1_000)
    make()
    assert redis.llen(messages) == 1_000
    redis.delete(messages)
    assert deliveries.send_due() == 1  # at once, since none was sent for it


def test_deliveries_that_nobody_tried_are_forgotten_with_their_records(
    deliveries: Deliveries, make: Callable[[], Delivery], redis: Redis, settings: Settings
) -> None:
    pending = webhooks_key(settings.key_prefix, "pending")
    delivery = make()
    redis.zadd(pending, {delivery.id: time.time() - settings.retention_s - 1})
    assert deliveries.counts()["pending"] == 1
    kept = make()
    assert redis.zrange(pending, 0, -1) == [kept.id]
    assert deliveries.counts()["failed"] == 1


def test_it_is_kept_until_all_tries_are_over_however_short_the_retention(
    settings: Settings, redis: Redis, admin: Any
) -> None:
    brief = settings.model_copy(update={"retention_s": 60})
    ledger, deliveries, job_id = Ledger(brief), Deliveries(brief, redis), new_job_id()
    ledger.submit(job_id, Task.TXT2IMG, "{}", "", origin=Origin(webhook=HOOK))
    ledger.cancel(job_id)
    [delivery] = deliveries.list("", 10)
    key = delivery_key(settings.key_prefix, delivery.id)
    deliveries.note(delivery, 500, "it answered 500")
    assert admin.ttl(key) > 1.25 * sum(RETRIES_S)
    deliveries.note(delivery, 200, None)
    assert 0 < admin.ttl(key) <= 60


@pytest.mark.parametrize("how", ["due", "claimed"])
def test_one_whose_record_is_gone_is_counted_as_failed(
    deliveries: Deliveries, make: Callable[[], Delivery], redis: Redis, settings: Settings,
    how: str,
) -> None:  # fmt: skip
    delivery = make()
    redis.delete(delivery_key(settings.key_prefix, delivery.id))
    redis.zadd(webhooks_key(settings.key_prefix, "pending"), {delivery.id: 0})
    if how == "due":
        deliveries.send_due()
    else:
        assert deliveries.claim(delivery.id) is None
    counts = deliveries.counts()
    assert (counts["failed"], counts["pending"]) == (1, 0)
    assert list(deliveries.list("", 10)) == []


def test_what_is_due_is_sent_again_unless_many_messages_wait(
    deliveries: Deliveries, make: Callable[[], Delivery], redis: Redis, settings: Settings
) -> None:
    pending = webhooks_key(settings.key_prefix, "pending")
    messages = messages_key(settings.key_prefix, WEBHOOK_QUEUE)
    redis.delete(messages)
    redis.zadd(pending, {make().id: 0})
    redis.delete(messages)
    assert deliveries.send_due() == 1
    assert deliveries.send_due() == 0
    redis.zadd(pending, {make().id: 0})
    redis.rpush(messages, *["x"] * 1_000)
    assert deliveries.send_due() == 0
    redis.delete(messages)
