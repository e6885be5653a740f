"""Jobs of many keys in one queue: nobody waits behind all that another has sent."""

import json
from typing import Any

import pytest

from crossmodal.errors import QueueFull, TooManyQueued
from crossmodal.jobs.connection import connect
from crossmodal.jobs.ledger import Attempt
from crossmodal.jobs.message import message_of
from crossmodal.jobs.names import messages_key, new_job_id, queue_key
from crossmodal.jobs.origin import Origin
from crossmodal.jobs.record import Failure, JobState
from crossmodal.jobs.submission import Submission
from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.settings import Settings
from tests.ledgers import Ledger

PARAMS = Txt2ImgParams(prompt="a red circle", seed=1)


class Queue:
    """A queue that messages are put into and taken from, without a worker."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.redis: Any = connect(settings)
        self.messages = messages_key(settings.key_prefix, "txt2img")
        self.ledger = Ledger(self.settings)

    def submit(self, owner: str, max_queued: int | None = None, priority: int = 0) -> str:
        job_id = new_job_id()
        self.ledger.submit(
            Submission(
                job_id,
                Task("txt2img"),
                PARAMS.model_dump_json(),
                "",
                message=message_of(job_id, PARAMS),
                origin=Origin(owner, max_queued),
                priority=priority,
            )
        )
        return job_id

    def take(self) -> str | None:
        """What a worker takes next: started, and ended at once."""
        raw = self.redis.rpop(self.messages)
        if raw is None:
            return None
        job_id = str(json.loads(str(raw))["headers"]["id"])
        attempt = self.ledger.start(job_id, "cpu@here")
        if isinstance(attempt, Attempt):
            self.ledger.release(attempt, Failure(code="x", message="x"), counts=False)
            self.ledger.cancel(job_id)
        return job_id

    def take_all(self) -> list[str]:
        taken = []
        while (job_id := self.take()) is not None:
            taken.append(job_id)
        return taken


@pytest.fixture
def queue(settings: Settings) -> Queue:
    return Queue(settings)


def test_a_thousand_jobs_of_one_key_delay_anothers_next_by_at_most_a_batch(queue: Queue) -> None:
    heavy = [queue.submit("heavy") for _ in range(1_000)]
    light = queue.submit("light")
    taken = queue.take_all()
    assert taken.index(light) <= queue.settings.max_batch
    assert sorted(taken) == sorted([*heavy, light])


@pytest.mark.parametrize("priority", [1, -1])
def test_no_priority_puts_a_keys_jobs_before_those_of_another(queue: Queue, priority: int) -> None:
    heavy = [queue.submit("heavy", priority=1) for _ in range(1_000)]
    light = queue.submit("light", priority=priority)
    taken = queue.take_all()
    assert taken.index(light) <= queue.settings.max_batch
    assert sorted(taken) == sorted([*heavy, light])


def test_a_key_orders_its_own_jobs(queue: Queue) -> None:
    first = [queue.submit("a") for _ in range(queue.settings.max_batch)]
    low, middle, high = (
        [queue.submit("a", priority=priority) for _ in range(5)] for priority in (-1, 0, 1)
    )
    assert queue.take_all() == [*first, *high, *middle, *low]


def test_messages_of_every_priority_that_were_canceled_do_not_pile_up(queue: Queue) -> None:
    kept = [queue.submit("heavy") for _ in range(queue.settings.max_batch)]
    for priority in (1, 0, -1) * 100:
        queue.ledger.cancel(queue.submit("heavy", priority=priority))
    kept.append(queue.submit("heavy", priority=-1))
    lengths = [
        queue.redis.llen(queue_key(queue.settings.key_prefix, "txt2img", f"backlog:heavy{end}"))
        for end in ("", ":1", ":-1")
    ]
    assert sum(lengths) < 200
    assert [job_id for job_id in queue.take_all() if job_id in kept] == kept


def test_many_heavy_keys_share_what_one_may_have_waiting(queue: Queue) -> None:
    for owner in ("a", "b", "c", "d"):
        for _ in range(60):
            queue.submit(owner)
    for _ in range(50):
        queue.take()
    light = queue.submit("light")
    assert queue.take_all().index(light) <= queue.settings.max_batch + 5


def test_keys_with_a_backlog_take_turns(queue: Queue) -> None:
    owner_of = {queue.submit(owner): owner for owner in ("a", "b") for _ in range(100)}
    taken = [owner_of[job_id] for job_id in queue.take_all()]
    later = taken[40:160]  # when the first messages are gone
    assert 40 <= later.count("a") <= 80


def test_one_key_keeps_its_own_order(queue: Queue) -> None:
    sent = [queue.submit("heavy") for _ in range(100)]
    assert queue.take_all() == sent


def test_jobs_of_nobody_go_straight_to_the_queue(queue: Queue) -> None:
    sent = [queue.submit("") for _ in range(100)]
    assert queue.redis.llen(queue.messages) == 100
    assert queue.take_all() == sent


def test_canceled_jobs_that_were_held_are_not_sent(queue: Queue) -> None:
    sent = [queue.submit("heavy") for _ in range(100)]
    for job_id in sent[20:90]:
        queue.ledger.cancel(job_id)
    assert queue.take_all() == sent[:20] + sent[90:]


def test_a_held_job_says_so_until_it_is_sent(queue: Queue) -> None:
    sent = [queue.submit("heavy") for _ in range(20)]
    assert not queue.ledger.get(sent[0]).held
    assert queue.ledger.get(sent[-1]).held
    for _ in range(10):
        queue.take()
    assert not queue.ledger.get(sent[-1]).held
    assert queue.ledger.get(sent[-1]).state is JobState.QUEUED


def test_a_key_has_no_more_jobs_waiting_than_it_may(queue: Queue) -> None:
    for _ in range(30):
        queue.submit("heavy", max_queued=30)
    with pytest.raises(TooManyQueued, match="30 are allowed"):
        queue.submit("heavy", max_queued=30)
    queue.submit("light", max_queued=30)
    queue.take()
    queue.submit("heavy", max_queued=30)


def test_jobs_that_were_canceled_while_they_waited_do_not_count(queue: Queue) -> None:
    for _ in range(30):
        queue.ledger.cancel(queue.submit("heavy", max_queued=30))
    queue.submit("heavy", max_queued=30)


def test_messages_of_held_jobs_that_were_canceled_do_not_pile_up(queue: Queue) -> None:
    kept = [queue.submit("heavy", max_queued=30) for _ in range(29)]
    backlog = queue_key(queue.settings.key_prefix, "txt2img", "backlog:heavy")
    for _ in range(300):
        queue.ledger.cancel(queue.submit("heavy", max_queued=30))
        assert queue.redis.llen(backlog) < 200
    assert [job_id for job_id in queue.take_all() if job_id in kept] == kept


def test_a_key_whose_backlog_was_all_canceled_goes_on_as_before(queue: Queue) -> None:
    sent = [queue.submit("heavy") for _ in range(queue.settings.max_batch)]
    for job_id in [queue.submit("heavy") for _ in range(150)]:
        queue.ledger.cancel(job_id)
    sent += [queue.submit("heavy") for _ in range(20)]
    assert [job_id for job_id in queue.take_all() if job_id in sent] == sent
    left = queue.redis.scan_iter(queue_key(queue.settings.key_prefix, "txt2img", "*"))
    assert {key.rpartition(":")[2] for key in left} == {"stats"}


@pytest.mark.parametrize("owner", ["", "heavy"])
def test_too_many_messages_of_jobs_that_were_canceled_and_deleted_fill_the_queue(
    settings: Settings, owner: str
) -> None:
    queue = Queue(settings.model_copy(update={"max_queue_length": 30}))
    for _ in range(2 * 30 + 100):
        job_id = queue.submit(owner, max_queued=30)
        queue.ledger.cancel(job_id)
        queue.ledger.remove(job_id)
    with pytest.raises(QueueFull, match=r"160 messages, mostly .* where 30 jobs are"):
        queue.submit(owner, max_queued=30)
    queue.take_all()
    queue.submit(owner, max_queued=30)


def test_jobs_that_were_deleted_while_their_messages_waited_leave_no_trace(queue: Queue) -> None:
    for job_id in [queue.submit("heavy") for _ in range(queue.settings.max_batch)]:
        queue.ledger.cancel(job_id)
        queue.ledger.remove(job_id)
    assert not queue.ledger.get(queue.submit("heavy")).held


def test_deleting_what_waits_gives_its_place_to_what_is_held(queue: Queue) -> None:
    sent = [queue.submit("heavy") for _ in range(queue.settings.max_batch + 3)]
    assert queue.ledger.get(sent[-1]).held
    for job_id in sent[:3]:
        queue.ledger.cancel(job_id)
        queue.ledger.remove(job_id)
    assert not queue.ledger.get(sent[-1]).held


def test_messages_that_somebody_purged_do_not_hold_the_others_for_ever(queue: Queue) -> None:
    sent = [queue.submit("heavy") for _ in range(100)]
    queue.redis.delete(queue.messages)
    for job_id in sent[:16]:
        queue.ledger.cancel(job_id)
    assert queue.ledger.promote(Task("txt2img")) > 0
    assert queue.take_all() == sent[16:]
