"""The webhook sender: what is due is posted once, whoever else sends, and whoever dies."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from crossmodal.errors import BrokerUnavailable
from crossmodal.jobs import webhooks
from crossmodal.jobs.calls import Call, Steps, call
from crossmodal.jobs.record import Delivery
from crossmodal.jobs.runners import Runner
from crossmodal.jobs.webhooks import MAX_OF_OWNER, Deliveries
from crossmodal.settings import Settings
from tests.background import hooked, running
from tests.receiver import Receiver, listening
from tests.waiting import until
from worker.background import webhooks as sending
from worker.background.webhooks import WebhookSender


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as receiver:
        yield receiver


@pytest.fixture
def private(settings: Settings) -> Settings:
    """Settings under which a receiver may be on this machine."""
    return settings.model_copy(update={"allow_private_urls": True})


@pytest.fixture
def runner(settings: Settings) -> Iterator[Runner]:
    runner = Runner(settings)
    yield runner
    runner.close()


def counts(runner: Runner, settings: Settings) -> dict[str, int]:
    return runner.run(Deliveries(settings).counts())


def test_two_senders_post_each_delivery_once(
    private: Settings, runner: Runner, receiver: Receiver
) -> None:
    jobs = [hooked(runner, private, receiver.url) for _ in range(200)]
    make = partial(WebhookSender, private, concurrency=16)
    with running(private, make), running(private, make):
        until(lambda: counts(runner, private)["delivered"] == 200, 60, "all deliveries")
    assert Counter(receiver.jobs()) == dict.fromkeys(jobs, 1)


def test_what_a_dead_sender_had_in_hand_is_posted_by_another(
    private: Settings, runner: Runner, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MARGIN_S", 1 - private.webhook_timeout_s)
    receiver.may_answer.clear()
    job_id = hooked(runner, private, receiver.url)
    make = partial(WebhookSender, private, concurrency=2)
    with running(private, make) as first:
        until(lambda: receiver.jobs() == [job_id], 30, "the first post")
        first.kill()
    receiver.may_answer.set()
    assert counts(runner, private)["pending"] == 1
    with running(private, make):
        until(lambda: counts(runner, private)["delivered"] == 1, 30, "the delivery")
    assert receiver.jobs() == [job_id] * 2


def test_what_was_posted_while_redis_is_away_is_not_posted_again(
    private: Settings, runner: Runner, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MARGIN_S", 1 - private.webhook_timeout_s)
    monkeypatch.setattr(sending, "AGAIN_S", 2.0)  # longer than the claim
    tries: list[int] = []
    note = Deliveries.note

    def away_at_first(*args: Any, **options: Any) -> Call[Delivery]:
        asked = note(*args, **options)

        @call
        def noted() -> Steps[Delivery]:
            tries.append(1)
            if len(tries) == 1:
                raise BrokerUnavailable("connection refused")
            return (yield from asked)

        return noted()

    monkeypatch.setattr(Deliveries, "note", away_at_first)
    job_id = hooked(runner, private, receiver.url)
    with running(private, partial(WebhookSender, private, concurrency=2)):
        until(lambda: counts(runner, private)["delivered"] == 1, 30, "the note")
    assert receiver.jobs() == [job_id]


def test_a_sender_that_is_told_to_end_finishes_its_posts(
    private: Settings, runner: Runner, receiver: Receiver
) -> None:
    receiver.may_answer.clear()
    job_id = hooked(runner, private, receiver.url)
    with running(private, partial(WebhookSender, private, concurrency=2)) as sender:
        until(lambda: receiver.jobs() == [job_id], 30, "the post")
        sender.stop()
        late = hooked(runner, private, receiver.url)
        receiver.may_answer.set()
    assert counts(runner, private) == {"delivered": 1, "failed": 0, "retried": 0, "pending": 1}
    assert late not in receiver.jobs()


def test_a_slow_receiver_holds_up_nobody_elses_webhooks(
    private: Settings, runner: Runner, receiver: Receiver
) -> None:
    receiver.may_answer.clear()
    for _ in range(20):
        hooked(runner, private, receiver.url, "slow")
    with listening() as fast:
        job_id = hooked(runner, private, fast.url, "fast")
        with running(private, partial(WebhookSender, private, concurrency=MAX_OF_OWNER + 1)):
            until(lambda: fast.jobs() == [job_id], 30, "the other's")
            assert len(receiver.told) <= MAX_OF_OWNER
            receiver.may_answer.set()


def test_a_receiver_that_is_away_is_tried_again(private: Settings, runner: Runner) -> None:
    with listening() as gone:
        url = gone.url
    job_id = hooked(runner, private, url)
    with running(private, partial(WebhookSender, private, concurrency=1)):
        until(lambda: counts(runner, private)["retried"] == 1, 30, "a try")
    [delivery] = runner.run(Deliveries(private).list("", 1, job_id))
    assert (delivery.outcome, delivery.status) == ("pending", None)
    assert str(delivery.error).startswith("fetch_failed: ")


def test_a_private_receiver_is_refused_and_not_tried_again(
    settings: Settings, runner: Runner, receiver: Receiver
) -> None:
    assert not settings.allow_private_urls
    job_id = hooked(runner, settings, receiver.url)
    with running(settings, partial(WebhookSender, settings, concurrency=1)):
        until(lambda: counts(runner, settings)["failed"] == 1, 30, "a try")
    [delivery] = runner.run(Deliveries(settings).list("", 1, job_id))
    assert (delivery.outcome, delivery.tries) == ("failed", 1)
    assert "url_refused" in str(delivery.error)
    assert receiver.told == []
