"""The ledger against a model of it: whatever happens in whatever order, the two agree.

Hypothesis makes up what submitters, workers and sweeps do to a few jobs; after each step, all
that is in Redis must be what `ModelJob` says in plain Python. The clock has no part in it:
leases last until somebody ends them, and a job's time is up when a rule says so.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from crossmodal.errors import IdempotencyConflict
from crossmodal.jobs.connection import connect
from crossmodal.jobs.ledger import Attempt, NotStarted
from crossmodal.jobs.names import dead_key, events_key, job_key, leases_key, messages_key
from crossmodal.jobs.record import Failure, Job, JobResult, JobState, Timings
from crossmodal.jobs.runners import Runner
from crossmodal.jobs.submission import Submission
from crossmodal.kinds.task import Task, tasks
from crossmodal.settings import Settings
from tests.ledgers import Ledger, OnALoop
from tests.servers import forget_all

QUEUED, RUNNING = JobState.QUEUED, JobState.RUNNING
HERE, THERE = "cpu@here", "cpu@there"
MAX_ATTEMPTS = 3
HOUR_S = 3600.0
IDS = [f"job-{n}" for n in range(9)]


@dataclass(eq=False)
class ModelJob:
    """What must be true of a job; its state and attempt number are those of its last event."""

    id: str
    task: Task
    expires_in_s: float | None

    def __post_init__(self) -> None:
        self.events = [(QUEUED, 0, "")]
        self.failure: str | None = None
        self.worker = ""
        self.uncounted = 0
        self.sendings = 0
        self.is_leased = self.is_suspect = self.is_dead = False
        self.seen: tuple[Job, int] | None = None

    @property
    def state(self) -> JobState:
        return self.events[-1][0]

    @property
    def attempt(self) -> int:
        return self.events[-1][1]

    @property
    def counted(self) -> int:
        return self.attempt - self.uncounted

    def start(self, worker: str) -> str:
        self.expire_if_due()
        if self.state.is_terminal or self.is_leased:
            return self.state if self.state.is_terminal else "busy"
        code = self.failure or "worker_lost"
        if self.state is RUNNING:
            self.events.append((QUEUED, self.attempt, code))
        if self.counted == MAX_ATTEMPTS:
            self.is_dead = True
            self.end(JobState.FAILED, code, failure=code)
            return "exhausted"
        self.worker, self.is_leased, self.failure = worker, True, None
        self.events.append((RUNNING, self.attempt + 1, ""))
        return "run"

    def put_back(self, code: str, counts: bool) -> None:
        self.is_leased = False
        self.uncounted += not counts
        self.sendings += 1
        self.events.append((QUEUED, self.attempt, code))

    def expire_if_due(self) -> None:
        if self.state is QUEUED and self.expires_in_s == 0 and self.counted == 0:
            self.end(JobState.EXPIRED, "expired", self.failure)

    def end(self, state: JobState, code: str, failure: str | None) -> None:
        self.is_leased = self.is_suspect = False
        self.failure = failure
        self.events.append((state, self.attempt, code))


def drawn(choices: "Callable[[LedgerMachine], list[Any]]") -> st.SearchStrategy[Any]:
    return st.runner().flatmap(lambda machine: st.sampled_from(choices(machine)))


# What a step may change is listed again, to be drawn more often than what it must not.
jobs = drawn(lambda m: [*m.model.values(), *m.live() * 3])
due_jobs = drawn(lambda m: [*m.model.values(), *[j for j in m.live() if not j.is_leased] * 3])
running_job = drawn(lambda m: [*m.model.values(), *m.running() * 3])
running_jobs = st.lists(running_job, min_size=1, max_size=3)
attempts = drawn(lambda m: [*m.attempts, *[a for a in m.attempts if m.held_by(a)] * 3])
workers = st.sampled_from([HERE, THERE])
failures = st.sampled_from(["model_host_crashed", "timed_out"]).map(
    lambda code: Failure(code=code, message="it failed", retryable=True)
)
requests = st.fixed_dictionaries(
    {
        "task": st.sampled_from(list(tasks())),
        "fingerprint": st.sampled_from(["print", "other"]),
        "message": st.sampled_from(["new", ""]),
        "idempotency_key": st.sampled_from([None, None, None, "order"]),
        "expires_in_s": st.sampled_from([None, HOUR_S]),
    }
)
while_one_runs = precondition(lambda machine: machine.running())
# The last live job is kept for the steps to come, of which else most would change nothing.
spare = precondition(lambda machine: len(machine.live()) > 1)


class LedgerMachine(RuleBasedStateMachine):
    """What may be done to the ledger (the rules), and what must be true then (the invariants)."""

    def __init__(self, settings: Settings, runner: Runner | OnALoop) -> None:
        super().__init__()
        self.prefix = settings.key_prefix
        self.ledger = Ledger(settings, runner)
        self.redis: Any = connect(settings)
        forget_all(self.redis, self.prefix)
        self.model: dict[str, ModelJob] = {}
        self.keys: dict[str, tuple[str, str]] = {}
        self.attempts: list[Attempt] = []
        self.messages: dict[Task, list[str]] = {task: [] for task in tasks()}
        self.ended: dict[str, dict[str, str]] = {}

    def teardown(self) -> None:
        self.ledger.close()
        self.redis.close()

    def live(self) -> list[ModelJob]:
        return [job for job in self.model.values() if not job.state.is_terminal]

    def running(self, worker: str | None = None) -> list[ModelJob]:
        """The jobs that run; those of one worker, where one is given."""
        return [j for j in self.live() if j.state is RUNNING and worker in (None, j.worker)]

    def held_by(self, attempt: Attempt) -> ModelJob | None:
        """The job that the attempt may end; None for a stale one."""
        job = self.model[attempt.job]
        return job if (job.state, job.attempt) == (RUNNING, attempt.number) else None

    def ended_by(self, attempt: Attempt, answer: bool) -> ModelJob | None:
        """The same, after the ledger has said whether it was ended."""
        job = self.held_by(attempt)
        assert answer == (job is not None)
        return job

    # -- what submitters do -------------------------------------------------------------

    @initialize(some=st.tuples(requests, requests, requests), starts=st.integers(0, MAX_ATTEMPTS))
    def begin(self, some: tuple[dict[str, Any], ...], starts: int) -> None:
        for job_id, request in zip(IDS, some, strict=False):
            self.submit(job_id, request)
        for _ in range(starts):
            self.crash(HERE, None)
            for job in [*self.model.values()][1:]:
                self.start(job, HERE)

    @rule(job_id=st.sampled_from(IDS), request=requests)
    def submit(self, job_id: str, request: dict[str, Any]) -> None:
        key, task, message = request["idempotency_key"], request["task"], request["message"]
        first_id, fingerprint = self.keys.get(key, (job_id, request["fingerprint"]))
        if fingerprint != request["fingerprint"]:
            with pytest.raises(IdempotencyConflict, match=f"{first_id},"):
                self.ledger.submit(Submission(job_id, params_json="{}", **request))
            return
        is_new = first_id not in self.model
        answer = self.ledger.submit(Submission(job_id, params_json="{}", **request))
        assert answer == (first_id, is_new)
        if is_new:
            self.model[job_id] = ModelJob(job_id, task, request["expires_in_s"])
            self.messages[task][:0] = [message] if message else []
            self.keys.update({key: (job_id, fingerprint)} if key else {})

    @spare
    @rule(job=jobs)
    def cancel(self, job: ModelJob) -> None:
        if not job.state.is_terminal:
            job.end(JobState.CANCELED, "canceled", job.failure)
        assert self.ledger.cancel(job.id) is job.state

    # -- what workers do ----------------------------------------------------------------

    @rule(job=due_jobs, worker=workers)
    def start(self, job: ModelJob, worker: str) -> None:
        expected = job.start(worker)
        answer = self.ledger.start(job.id, worker)
        if isinstance(answer, NotStarted):
            assert answer.reason == expected
            return
        assert expected == "run"
        assert (answer.job, answer.number) == (job.id, job.attempt)
        assert (answer.counted, answer.is_last) == (job.counted, job.counted == MAX_ATTEMPTS)
        assert answer.is_suspect == job.is_suspect
        self.attempts.append(answer)

    @spare
    @while_one_runs
    @rule(attempt=attempts)
    def succeed(self, attempt: Attempt) -> None:
        if job := self.ended_by(attempt, self.ledger.succeed(attempt, result_of(attempt))):
            job.end(JobState.SUCCEEDED, "", failure=None)

    @spare
    @while_one_runs
    @rule(attempt=attempts, failure=failures, dead=st.booleans())
    def fail(self, attempt: Attempt, failure: Failure, dead: bool) -> None:
        if job := self.ended_by(attempt, self.ledger.fail(attempt, failure, dead=dead)):
            job.is_dead = dead
            job.end(JobState.FAILED, failure.code, failure.code)

    @while_one_runs
    @rule(attempt=attempts, failure=failures, counts=st.booleans(), alone=st.booleans())
    def release(self, attempt: Attempt, failure: Failure, counts: bool, alone: bool) -> None:
        answer = self.ledger.release(attempt, failure, counts=counts, alone=alone)
        if job := self.ended_by(attempt, answer):
            job.failure = failure.code
            job.is_suspect |= alone
            job.put_back(failure.code, counts)

    @while_one_runs
    @rule(some=running_jobs, worker=workers)
    def renew(self, some: list[ModelJob], worker: str) -> None:
        self.ledger.renew(worker, [job.id for job in some])
        for job in {*some} & {*self.running(worker)}:
            job.is_leased = True

    @while_one_runs
    @rule(some=running_jobs, worker=workers, failure=st.none() | failures)
    def abandon(self, some: list[ModelJob], worker: str, failure: Failure | None) -> None:
        self.ledger.abandon(worker, [job.id for job in some], failure)
        for job in {*some} & {*self.running(worker)}:
            job.is_leased = False
            job.failure = failure.code if failure else job.failure

    @while_one_runs
    @rule(worker=workers, failure=st.none() | failures)
    def crash(self, worker: str, failure: Failure | None) -> None:
        self.abandon(self.running(worker), worker, failure)

    @while_one_runs
    @rule(worker=workers)
    def disown(self, worker: str) -> None:
        stopped = self.running(worker)
        assert set(self.ledger.disown(worker, map(str, tasks()))) == {job.id for job in stopped}
        for job in stopped:
            job.put_back("worker_stopped", counts=False)

    # -- what sweeps do, and time -------------------------------------------------------

    @rule(job=jobs)
    def look(self, job: ModelJob) -> None:
        job.expire_if_due()
        status, found = self.ledger.status(job.id), self.ledger.get(job.id)
        waiting = [j for j in self.live() if (j.task, j.state) == (job.task, QUEUED)]
        assert status.position == (waiting.index(job) if job in waiting else None)
        assert (found.state, found.attempt) == (status.state, status.attempt) == job.events[-1][:2]
        assert self.ledger.is_leased(job.id) == job.is_leased
        history = [(e.state, e.attempt, e.code) for e in self.ledger.history(job.id)]
        assert history == job.events
        some = self.attempts[-2:]
        assert self.ledger.lost(some) == [a for a in some if self.held_by(a) is None]
        job.seen = found, job.sendings

    @rule(job=jobs)
    def requeue(self, job: ModelJob) -> None:
        """By what was seen of the job, which may be long ago."""
        if job.seen is None:
            self.look(job)
        assert job.seen is not None
        found, sendings = job.seen
        is_due = not job.state.is_terminal and not job.is_leased
        is_unchanged = (found.attempt, sendings) == (job.attempt, job.sendings)
        assert self.ledger.requeue(found, "again") == (is_due and is_unchanged)
        if is_due and is_unchanged:
            job.sendings += 1
            self.messages[job.task].append("again")

    @rule(job=jobs)
    def time_is_up(self, job: ModelJob) -> None:
        """The clock stays; the job's time is moved."""
        if job.expires_in_s is not None and not job.state.is_terminal:
            self.redis.hset(job_key(self.prefix, job.id), "expires_at", 1)
            job.expires_in_s = 0

    # -- what must be true --------------------------------------------------------------

    @invariant()
    def records_agree(self) -> None:
        # Read without the ledger, which expires what it looks at; in one go, to be quick.
        with self.redis.pipeline() as pipe:
            for job in self.model.values():
                pipe.hgetall(job_key(self.prefix, job.id))
                pipe.lrange(events_key(self.prefix, job.id), -1, -1)
            replies = iter(pipe.execute())
        for job, record, events in zip(self.model.values(), replies, replies, strict=True):
            state, attempt, code, _ = events[0].split(" ") if events else (QUEUED, 0, "", "")
            assert (state, int(attempt), code) == job.events[-1]
            assert (record["state"], int(record["attempt"])) == (job.state, job.attempt)
            assert json.loads(record.get("failure", "{}")).get("code") == job.failure
            assert ("alone" in record) == job.is_suspect
            winner = json.loads(record.get("result", "{}")).get("attempt")
            assert winner == (job.attempt if job.state is JobState.SUCCEEDED else None)
            if job.state.is_terminal:
                assert record == self.ended.setdefault(job.id, record)

    @invariant()
    def queues_agree(self) -> None:
        for task in tasks():
            queue = self.ledger.queue(str(task))
            count = Counter(job.state for job in self.model.values() if job.task is task)
            assert (queue.depth, queue.running) == (count[QUEUED], count[RUNNING])
            assert queue.finished == {s: n for s, n in count.items() if s.is_terminal}

    @invariant()
    def lists_agree(self) -> None:
        with self.redis.pipeline() as pipe:
            pipe.zrange(leases_key(self.prefix), 0, -1)
            pipe.zrange(dead_key(self.prefix), 0, -1)
            for task in tasks():
                pipe.lrange(messages_key(self.prefix, str(task)), 0, -1)
            leased, dead, *messages = pipe.execute()
        assert set(leased) == {job.id for job in self.model.values() if job.is_leased}
        assert set(dead) == {job.id for job in self.model.values() if job.is_dead}
        assert messages == [self.messages[task] for task in tasks()]


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


@pytest.mark.timeout(600)  # to find the shortest sequence that fails may take five minutes
@pytest.mark.parametrize("runner", [Runner, OnALoop])
def test_the_ledger_agrees_with_its_model(
    settings: Settings, runner: Callable[[Settings], Runner | OnALoop]
) -> None:
    own = settings.model_copy(update={"max_attempts": MAX_ATTEMPTS, "lease_s": HOUR_S})

    class Machine(LedgerMachine):
        def __init__(self) -> None:
            super().__init__(own, runner(own))

    effort = hypothesis.settings(
        max_examples=30,
        stateful_step_count=40,
        deadline=None,
        print_blob=True,
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),  # as Hypothesis itself does here
        phases=set(hypothesis.Phase) - {hypothesis.Phase.explain},  # it takes minutes
    )
    run_state_machine_as_test(Machine, settings=effort)
