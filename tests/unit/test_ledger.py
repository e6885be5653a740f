"""The ledger on a real server: every transition, and every one that must be refused."""

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from crossmodal.errors import IdempotencyConflict, InvalidParams, JobNotFound, QueueFull
from crossmodal.jobs import names
from crossmodal.jobs.connection import connect
from crossmodal.jobs.ledger import Attempt, NotStarted
from crossmodal.jobs.names import leases_key, new_job_id, watched_key
from crossmodal.jobs.record import Failure, JobResult, JobState, PreviewRef, Progress, Timings
from crossmodal.jobs.submission import MAX_PARAMS, NOBODY_WORKS_S, Submission
from crossmodal.kinds.task import Task, tasks
from crossmodal.settings import Settings
from tests.at_once import at_once
from tests.ledgers import Ledger
from tests.waiting import until

PARAMS = '{"prompt": "a circle", "seed": 1}'
WORKER = "cpu@test"
HALF = Progress(step=10, of=20, left_s=5.0)
FAILURE = Failure(code="model_host_crashed", message="it crashed", retryable=True)


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    with Ledger(settings) as ledger:
        yield ledger


def submit(ledger: Ledger, fingerprint: str = "print", **options: Any) -> str:
    job = Submission(new_job_id(), Task("txt2img"), PARAMS, fingerprint, **options)
    return ledger.submit(job)[0]


def start(ledger: Ledger, job_id: str, after_death: bool = False) -> Attempt:
    if after_death:
        ledger.abandon(WORKER, [job_id])
    attempt = ledger.start(job_id, WORKER)
    assert isinstance(attempt, Attempt)
    return attempt


def refusal(ledger: Ledger, job_id: str, after_death: bool = False) -> str:
    if after_death:
        ledger.abandon(WORKER, [job_id])
    answer = ledger.start(job_id, WORKER)
    assert isinstance(answer, NotStarted)
    return answer.reason


def move_expiry(settings: Settings, job_id: str) -> None:
    """Have the job's time be up: the clock stays, the time is moved into the past."""
    with connect(settings) as redis:
        redis.hset(names.job_key(settings.key_prefix, job_id), "expires_at", 1)


def result_of(attempt: Attempt) -> JobResult:
    return JobResult(
        job=attempt.job,
        task=Task("txt2img"),
        params={},
        model="m",
        bundle_version="v",
        timings=Timings(queued_s=0, batch_wait_s=0, inference_s=0, store_s=0, total_s=0),
        batch_size=1,
        attempt=attempt.number,
    )


def test_a_new_job_is_queued(ledger: Ledger) -> None:
    job = ledger.get(submit(ledger))
    assert (job.state, job.attempt, job.params["prompt"]) == (JobState.QUEUED, 0, "a circle")


def test_params_beyond_what_a_record_may_hold_are_refused(ledger: Ledger) -> None:
    long = json.dumps({"prompt": "a", "weights": [1] * MAX_PARAMS})
    with pytest.raises(InvalidParams, match=f"{len(long)} characters of JSON, 65536 are allowed"):
        ledger.submit(Submission(new_job_id(), Task("txt2img"), long, "print"))


def test_a_job_succeeds(ledger: Ledger) -> None:
    attempt = start(ledger, submit(ledger))
    assert ledger.succeed(attempt, result_of(attempt))
    job = ledger.get(attempt.job)
    assert job.state is JobState.SUCCEEDED
    assert job.result == result_of(attempt)
    assert job.finished_at is not None


def test_a_job_fails_with_its_cause(ledger: Ledger) -> None:
    attempt = start(ledger, submit(ledger))
    assert ledger.fail(attempt, FAILURE)
    job = ledger.get(attempt.job)
    assert (job.state, job.failure) == (JobState.FAILED, FAILURE)


def test_an_unknown_job_is_not_found(ledger: Ledger) -> None:
    with pytest.raises(JobNotFound):
        ledger.get(new_job_id())
    with pytest.raises(JobNotFound):
        ledger.cancel(new_job_id())
    assert refusal(ledger, new_job_id()) == "unknown"


@at_once("job_id", ["", "no such job", "../../x", "x" * 999])
def test_an_id_that_no_job_can_have_is_not_found_either(ledger: Ledger, job_id: str) -> None:
    asks: list[Callable[[], object]] = [
        lambda: ledger.get(job_id),
        lambda: ledger.cancel(job_id),
        lambda: ledger.follow(job_id),
        lambda: ledger.ended([job_id]),
    ]
    for ask in asks:
        with pytest.raises(JobNotFound):
            ask()


def test_a_terminal_state_is_final(ledger: Ledger) -> None:
    attempt = start(ledger, submit(ledger))
    ledger.succeed(attempt, result_of(attempt))
    assert not ledger.fail(attempt, FAILURE)
    assert not ledger.release(attempt, FAILURE)
    assert ledger.cancel(attempt.job) is JobState.SUCCEEDED
    assert refusal(ledger, attempt.job, after_death=True) == "succeeded"
    assert ledger.get(attempt.job).state is JobState.SUCCEEDED


def test_only_the_current_attempt_may_finish(ledger: Ledger) -> None:
    first = start(ledger, submit(ledger))
    second = start(ledger, first.job, after_death=True)
    assert (first.number, second.number) == (1, 2)
    assert not ledger.succeed(first, result_of(first))
    assert ledger.succeed(second, result_of(second))
    found = ledger.get(first.job).result
    assert found is not None
    assert found.attempt == 2


def test_a_duplicate_message_does_not_start_a_running_job(ledger: Ledger) -> None:
    attempt = start(ledger, submit(ledger))
    assert refusal(ledger, attempt.job) == "busy"


def test_attempts_of_a_job_whose_workers_die_are_counted(ledger: Ledger) -> None:
    job_id = submit(ledger)
    for _ in range(3):
        start(ledger, job_id, after_death=True)
    assert refusal(ledger, job_id, after_death=True) == "exhausted"
    job = ledger.get(job_id)
    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert job.failure.code == "worker_lost"


def test_progress_is_told_and_not_kept_in_the_history(ledger: Ledger) -> None:
    attempt = start(ledger, submit(ledger))
    assert ledger.get(attempt.job).progress is None
    ledger.progress(attempt, HALF)
    assert ledger.get(attempt.job).progress == ledger.status(attempt.job).progress == HALF
    assert [event.state for event in ledger.history(attempt.job)] == ["queued", "running"]


def test_another_attempt_begins_again(ledger: Ledger) -> None:
    first = start(ledger, submit(ledger))
    ledger.progress(first, HALF)
    ledger.release(first, FAILURE)
    assert ledger.get(first.job).progress is None
    second = start(ledger, first.job)
    assert ledger.get(first.job).progress is None
    ledger.progress(first, HALF)
    assert ledger.get(first.job).progress is None
    ledger.progress(second, HALF)
    assert ledger.get(first.job).progress == HALF


def test_a_job_that_has_ended_has_no_progress(ledger: Ledger) -> None:
    attempt = start(ledger, submit(ledger))
    ledger.progress(attempt, HALF)
    ledger.succeed(attempt, result_of(attempt))
    ledger.progress(attempt, HALF)
    assert ledger.get(attempt.job).progress is None


def test_a_worker_learns_with_its_progress_whether_somebody_watches(
    ledger: Ledger, settings: Settings
) -> None:
    first, other = start(ledger, submit(ledger)), start(ledger, submit(ledger))
    assert not ledger.progress(first, HALF)
    ledger.watch([first.job])
    shown = HALF.model_copy(update={"preview": PreviewRef(key="previews/j/1.jpeg", number=3)})
    assert ledger.progress(first, shown)
    assert not ledger.progress(other, HALF)
    assert ledger.get(first.job).progress == shown
    assert connect(settings).exists(watched_key(settings.key_prefix, first.job))
    ledger.succeed(first, result_of(first))
    assert not ledger.progress(first, HALF)  # it is not its job any more


def test_the_last_attempt_says_so(ledger: Ledger) -> None:
    job_id = submit(ledger)
    last = [start(ledger, job_id, after_death=True).is_last for _ in range(3)]
    assert last == [False, False, True]


def test_a_released_job_waits_at_its_old_place(ledger: Ledger) -> None:
    attempt = start(ledger, submit(ledger))
    later = submit(ledger)
    assert ledger.release(attempt, FAILURE)
    assert ledger.status(attempt.job).position == 0
    assert ledger.status(later).position == 1
    assert ledger.get(attempt.job).failure == FAILURE


def test_an_attempt_that_does_not_count_leaves_all_others(ledger: Ledger) -> None:
    job_id = submit(ledger)
    for _ in range(5):
        ledger.release(start(ledger, job_id), FAILURE, counts=False)
    assert [start(ledger, job_id, after_death=True).is_last for _ in range(3)][-1]
    assert ledger.get(job_id).attempt == 8  # the fence never goes back


def test_a_canceled_job_never_runs(ledger: Ledger) -> None:
    job_id = submit(ledger)
    assert ledger.cancel(job_id) is JobState.CANCELED
    assert refusal(ledger, job_id) == "canceled"


def test_a_result_that_comes_after_a_cancel_is_refused(ledger: Ledger) -> None:
    attempt = start(ledger, submit(ledger))
    assert ledger.cancel(attempt.job) is JobState.CANCELED
    assert not ledger.succeed(attempt, result_of(attempt))
    assert ledger.get(attempt.job).result is None


def test_of_cancel_and_finish_at_once_exactly_one_wins(ledger: Ledger) -> None:
    with ThreadPoolExecutor(2) as pool:
        for _ in range(50):
            attempt = start(ledger, submit(ledger))
            canceled = pool.submit(ledger.cancel, attempt.job)
            finished = pool.submit(ledger.succeed, attempt, result_of(attempt))
            won = (canceled.result() is JobState.CANCELED, finished.result())
            assert won in ((True, False), (False, True))
            state = ledger.get(attempt.job).state
            assert state is (JobState.CANCELED if won[0] else JobState.SUCCEEDED)


def test_a_job_that_was_not_started_in_time_expires_for_the_worker(ledger: Ledger) -> None:
    job_id = submit(ledger, expires_in_s=0.0)
    assert refusal(ledger, job_id) == "expired"
    assert ledger.get(job_id).state is JobState.EXPIRED


def test_a_job_expires_where_no_worker_is(ledger: Ledger) -> None:
    assert ledger.get(submit(ledger, expires_in_s=0.0)).state is JobState.EXPIRED


def test_a_started_job_does_not_expire(ledger: Ledger, settings: Settings) -> None:
    attempt = start(ledger, submit(ledger, expires_in_s=60))
    ledger.release(attempt, FAILURE)
    move_expiry(settings, attempt.job)
    assert ledger.get(attempt.job).state is JobState.QUEUED


def test_an_attempt_that_did_not_count_does_not_keep_a_job_from_expiring(
    ledger: Ledger, settings: Settings
) -> None:
    attempt = start(ledger, submit(ledger, expires_in_s=60))
    ledger.release(attempt, FAILURE, counts=False)
    assert ledger.get(attempt.job).state is JobState.QUEUED
    move_expiry(settings, attempt.job)
    assert ledger.get(attempt.job).state is JobState.EXPIRED


def test_of_many_attempts_those_are_told_that_have_lost_their_jobs(ledger: Ledger) -> None:
    canceled, superseded, running = (start(ledger, submit(ledger)) for _ in range(3))
    ledger.cancel(canceled.job)
    start(ledger, superseded.job, after_death=True)
    assert ledger.lost([canceled, running, superseded]) == [canceled, superseded]
    assert ledger.lost([]) == []


def test_an_attempt_is_held_until_another_begins_or_the_job_ends(ledger: Ledger) -> None:
    first = start(ledger, submit(ledger))
    assert ledger.holds(first)
    second = start(ledger, first.job, after_death=True)
    assert not ledger.holds(first)
    assert ledger.holds(second)
    ledger.cancel(first.job)
    assert not ledger.holds(second)


def test_a_full_queue_refuses(settings: Settings) -> None:
    ledger = Ledger(settings.model_copy(update={"max_queue_length": 2}))
    submit(ledger)
    submit(ledger)
    with pytest.raises(QueueFull, match="holds 2 jobs, 2 are allowed") as caught:
        submit(ledger)
    assert caught.value.retry_after_s == NOBODY_WORKS_S
    submit(ledger, bounded=False)
    ledger.close()


def test_a_full_queue_counts_no_jobs_that_have_ended(settings: Settings) -> None:
    ledger = Ledger(settings.model_copy(update={"max_queue_length": 2}))
    message = {"message": "{}"}
    for _ in range(3):
        ledger.cancel(submit(ledger, **message))
    for _ in range(2):
        submit(ledger, **message)
    with pytest.raises(QueueFull, match="holds 2 jobs, 2 are allowed"):
        submit(ledger, **message)
    ledger.close()


def test_a_full_queue_says_when_there_will_be_room(settings: Settings) -> None:
    ledger = Ledger(settings.model_copy(update={"max_queue_length": 100}))
    stats = names.queue_key(settings.key_prefix, "txt2img", "stats")
    with connect(settings) as redis:
        redis.hset(stats, "mean_run_s", "8.0")
    for _ in range(4):
        start(ledger, submit(ledger))  # four at once take eight seconds: one in two seconds
    for _ in range(100):
        submit(ledger)
    with pytest.raises(QueueFull, match="submit again in 10 s") as caught:
        submit(ledger)
    assert caught.value.retry_after_s == 10
    ledger.close()


def test_a_repeated_key_finds_the_first_job(ledger: Ledger) -> None:
    first = submit(ledger, idempotency_key="order-1")
    assert submit(ledger, idempotency_key="order-1") == first
    assert submit(ledger, idempotency_key="order-2") != first


def test_a_key_with_other_params_is_a_conflict(ledger: Ledger) -> None:
    first = submit(ledger, idempotency_key="order-1")
    with pytest.raises(IdempotencyConflict, match=first):
        submit(ledger, "other", idempotency_key="order-1")


def test_of_many_submitters_with_one_key_one_creates_the_job(ledger: Ledger) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda _: submit(ledger, idempotency_key="k"), range(50)))
    assert len(ids) == 1
    assert ledger.queue("txt2img").depth == 1


def test_the_queue_counts_what_is_true(ledger: Ledger) -> None:
    jobs = [submit(ledger) for _ in range(6)]
    done = start(ledger, jobs[0])
    ledger.succeed(done, result_of(done))
    ledger.fail(start(ledger, jobs[1]), FAILURE)
    ledger.cancel(jobs[2])
    start(ledger, jobs[3])
    queue = ledger.queue("txt2img")
    assert (queue.depth, queue.running) == (2, 1)
    assert queue.finished == {"succeeded": 1, "failed": 1, "canceled": 1}
    assert queue.mean_run_s is not None
    assert queue.oldest_wait_s > 0
    assert [ledger.status(j).position for j in jobs] == [None, None, None, None, 0, 1]
    assert ledger.status(jobs[5]).estimated_wait_s is not None


def test_ended_jobs_are_kept_for_their_retention_and_live_ones_for_ever(
    settings: Settings, ledger: Ledger, admin: Any
) -> None:
    from crossmodal.jobs.connection import connect

    redis = connect(settings)
    attempt = start(ledger, submit(ledger, idempotency_key="k"))
    keys = list(redis.scan_iter(f"{settings.key_prefix}:job:*"))
    keys += [f"{settings.key_prefix}:idempotency:k"]
    assert len(keys) == 3
    assert {admin.ttl(key) for key in keys} == {-1}
    ledger.succeed(attempt, result_of(attempt))
    assert all(0 < int(str(admin.ttl(key))) <= settings.retention_s for key in keys)
    redis.close()


def end_in_one_way(ledger: Ledger, attempt: Attempt, way: int) -> None:
    if way == 0:
        ledger.succeed(attempt, result_of(attempt))
    elif way == 1:
        ledger.fail(attempt, FAILURE, dead=True)
    else:
        if way == 2:
            ledger.release(attempt, FAILURE)
        ledger.cancel(attempt.job)


def test_redis_is_as_empty_as_before_when_all_records_have_expired(
    settings: Settings, admin: Any
) -> None:
    ledger = Ledger(settings.model_copy(update={"retention_s": 1}))
    for i in range(40):
        attempt = start(ledger, submit(ledger, idempotency_key=f"k{i}"))
        end_in_one_way(ledger, attempt, i % 4)
    with connect(settings) as redis:
        kept = {names.queue_key(settings.key_prefix, "txt2img", "stats")}
        told = {f"{settings.key_prefix}:events:{i}" for i in range(names.SHARDS)}  # for an hour
        until(lambda: set(redis.scan_iter(f"{settings.key_prefix}:*")) - told == kept, 60)
        assert all(0 < admin.ttl(key) <= 3_600 for key in told if redis.exists(key))
    ledger.close()


def test_an_attempt_is_alive_as_long_as_its_lease_is_renewed(
    settings: Settings, ledger: Ledger
) -> None:
    brief = Ledger(settings.model_copy(update={"lease_s": 0.2}))
    renewed, other = (start(brief, submit(brief)).job for _ in range(2))
    ledger.renew(WORKER, [renewed])  # for a whole lease, and not for 0.2 s
    until(lambda: isinstance(brief.start(other, WORKER), Attempt), 60)
    assert refusal(ledger, renewed) == "busy"
    brief.renew(WORKER, [renewed])
    until(lambda: isinstance(ledger.start(renewed, WORKER), Attempt), 60)
    assert ledger.get(renewed).attempt == 2
    brief.close()


def test_another_worker_has_no_say_in_a_lease(ledger: Ledger) -> None:
    attempt = start(ledger, submit(ledger))
    ledger.abandon("other@test", [attempt.job])
    assert refusal(ledger, attempt.job) == "busy"


@pytest.mark.parametrize("ending", ["succeed", "fail", "release", "cancel"])
def test_no_lease_outlives_its_attempt(settings: Settings, ledger: Ledger, ending: str) -> None:
    attempt = start(ledger, submit(ledger))
    redis = connect(settings)
    assert redis.zcard(leases_key(settings.key_prefix)) == 1
    if ending == "succeed":
        ledger.succeed(attempt, result_of(attempt))
    elif ending == "cancel":
        ledger.cancel(attempt.job)
    else:
        getattr(ledger, ending)(attempt, FAILURE)
    ledger.renew(WORKER, [attempt.job])  # a tick that comes late
    assert redis.zcard(leases_key(settings.key_prefix)) == 0
    redis.close()


def test_what_a_stopped_worker_ran_is_put_back_and_no_attempt_is_counted(ledger: Ledger) -> None:
    mine, others = submit(ledger), submit(ledger)
    start(ledger, mine)
    assert isinstance(ledger.start(others, "other@test"), Attempt)
    assert ledger.disown(WORKER, map(str, tasks())) == [mine]
    assert ledger.get(mine).state is JobState.QUEUED
    assert ledger.get(others).state is JobState.RUNNING
    again = start(ledger, mine)
    assert (again.number, again.counted) == (2, 1)
    assert [event.code for event in ledger.history(mine)] == ["", "", "worker_stopped", ""]


def test_the_next_attempt_after_a_crash_knows_that_it_is_a_suspect(ledger: Ledger) -> None:
    first = start(ledger, submit(ledger))
    assert not first.is_suspect
    ledger.release(first, FAILURE, counts=False, alone=True)
    second = start(ledger, first.job)
    assert (second.is_suspect, second.counted) == (True, 1)
    assert start(ledger, first.job, after_death=True).is_suspect  # whatever ended it meanwhile


def test_it_is_known_how_often_a_host_died_beside_a_job(ledger: Ledger) -> None:
    gone = Failure(code="model_host_unavailable", message="", retryable=True)
    attempt = start(ledger, submit(ledger))
    for failure in (gone, FAILURE, gone, FAILURE):
        ledger.release(attempt, failure, counts=False)
        attempt = start(ledger, attempt.job)
    assert (attempt.number, attempt.counted, attempt.excused) == (5, 1, 2)


def test_an_attempt_that_died_leaves_its_cause_in_the_history(ledger: Ledger) -> None:
    job_id = submit(ledger)
    start(ledger, job_id)
    start(ledger, job_id, after_death=True)
    ledger.abandon(WORKER, [job_id], Failure(code="timed_out", message="", retryable=True))
    start(ledger, job_id)
    assert [e.code for e in ledger.history(job_id)] == ["", "", "worker_lost", "", "timed_out", ""]


def test_a_thousand_cancels_race_with_as_many_results(settings: Settings, ledger: Ledger) -> None:
    """Exactly one wins each race, and everybody is told the same."""
    ids = [submit(ledger, bounded=False) for _ in range(1_000)]
    attempts = {i: start(ledger, i) for i in ids}
    order = [*((i, "cancel") for i in ids), *((i, "succeed") for i in ids)]
    random.Random(7).shuffle(order)

    def act(deed: tuple[str, str]) -> tuple[str, JobState | bool]:
        job_id, kind = deed
        if kind == "cancel":
            return job_id, ledger.cancel(job_id)
        return job_id, ledger.succeed(attempts[job_id], result_of(attempts[job_id]))

    with ThreadPoolExecutor(16) as pool:
        told = list(pool.map(act, order))
    recorded = {i for i, answer in told if answer is True}
    said = {i: answer for i, answer in told if isinstance(answer, JobState)}
    states = {i: ledger.status(i).state for i in ids}
    assert states == said
    assert recorded == {i for i, state in states.items() if state is JobState.SUCCEEDED}
    assert 0 < len(recorded) < len(ids)
    assert all(ledger.history(i)[-1].state is states[i] for i in ids)
    assert all((ledger.get(i).result is not None) == (i in recorded) for i in ids)
    finished = ledger.queue("txt2img").finished
    assert finished == {"succeeded": len(recorded), "canceled": len(ids) - len(recorded)}
