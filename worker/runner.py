"""One attempt at one job, from its start in the ledger to its end. Knows nothing of Celery."""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from crossmodal import logs, tracing
from crossmodal.errors import (
    BrokerUnavailable,
    CrossmodalError,
    InvalidParams,
    JobFailed,
    JobNotFound,
    ModelHostCrashed,
    ModelHostUnavailable,
    TimedOut,
    is_callers_fault,
)
from crossmodal.jobs.calls import Call
from crossmodal.jobs.ledger import Attempt, JobLedger, NotStarted
from crossmodal.jobs.names import Task, check_job_id
from crossmodal.jobs.origin import Origin
from crossmodal.jobs.params import (
    BulkParams,
    Params,
    fix_seed,
    parse_params,
)
from crossmodal.jobs.record import (
    Failure,
    JobResult,
    JobState,
)
from crossmodal.jobs.runners import Runner
from crossmodal.metrics import job_ended
from crossmodal.settings import Settings
from worker.blobs import Blobs
from worker.bulk import BulkRun
from worker.host.client import HostClient, NoLongerWanted
from worker.single import SingleRun
from worker.threads import ContextThreads
from worker.wanted import Wanted

log = logging.getLogger(__name__)

TELL_AGAIN_S = 0.5
MAX_EXCUSED = 10  # a job beside which hosts die more often is not believed any more
MAX_RECORDED_PARAMS = 4_096  # of params that are wrong, this much is kept to be looked at


@dataclass(frozen=True)
class Delivery:
    """A message as it was taken from the queue by the worker called `worker`.

    `is_recorded` says that its sender had opened the job's record, so that a job without one
    has outlived it; `expires_in_s` and `traceparent` are of a job that has none yet.
    """

    job: str
    task: Task
    raw: Mapping[str, Any]
    worker: str
    is_recorded: bool = False
    expires_in_s: float | None = None
    traceparent: str | None = None


@dataclass(frozen=True)
class Skipped:
    """The message needs no work: its job is `canceled`, `expired` or `unknown`, or the attempt was
    `superseded` by another, which will tell."""

    reason: str


@dataclass(frozen=True)
class Busy:
    """Another process runs the job. The message must come back, in case that process dies."""


@dataclass(frozen=True)
class Released:
    """The attempt failed in a way that may pass; the job waits for the next one."""

    failure: Failure
    counted: int

    @property
    def code(self) -> str:
        return self.failure.code


Ending = JobResult | Failure | Skipped | Busy | Released


class JobRunner:
    """What a task process needs to run jobs; made once a process, after the fork.

    `interrupted_by` is what the pool raises in an attempt that has used up its run time.
    """

    def __init__(
        self, settings: Settings, host: HostClient, interrupted_by: type[Exception]
    ) -> None:
        self._settings = settings
        self._interrupted_by = interrupted_by
        # No retries: a `start` that is sent twice would be taken for a second message.
        self._run = Runner(settings, retries=0).run
        self._ledger = JobLedger(settings)
        self._threads = ContextThreads(thread_name_prefix="storage")
        self._host = host
        self._blobs = Blobs(settings)
        self._single = SingleRun(self._blobs, host)
        self._bulk = BulkRun(settings, self._blobs, host, self._threads)

    def run(self, delivery: Delivery) -> Ending:
        """Bring the job as far as this attempt can.

        Raises `BrokerUnavailable`, and `InvalidParams` for an id that no job may have.
        """
        problem = None if delivery.is_recorded else self._adopt(delivery)
        attempt = self._run(self._ledger.start(delivery.job, delivery.worker))
        if isinstance(attempt, NotStarted):
            log.info("job %s is not started: %s", delivery.job, attempt.reason)
            return Busy() if attempt.reason == "busy" else self._outcome(delivery.job)
        ending = self._observe(delivery.task, attempt, problem)
        return self._outcome(delivery.job) if isinstance(ending, Skipped) else ending

    def _outcome(self, job_id: str) -> Ending:
        """How a job has ended that this message did not end, for those who watch the message."""
        try:
            job = self._run(self._ledger.get(job_id))
        except JobNotFound:
            return Skipped("unknown")
        ended = {JobState.SUCCEEDED: job.result, JobState.FAILED: job.failure}.get(job.state)
        return ended or Skipped(job.state if job.state.is_terminal else "superseded")

    def _observe(self, task: Task, attempt: Attempt, problem: InvalidParams | None) -> Ending:
        """Run the attempt, seen in the log, in the trace of its job and in metrics."""
        begun = time.monotonic()
        with (
            logs.context(job=attempt.job, attempt=attempt.number, task=task),
            tracing.span(
                "job.attempt", attempt.traceparent, kind="consumer", job=attempt.job,
                attempt=attempt.number, task=task, queued_s=attempt.queued_s,
            ) as span,
        ):  # fmt: skip
            if problem is None:
                ending = self._run_attempt(task, attempt)
            else:
                ending = self._refuse(attempt, problem)
            if isinstance(ending, Failure | Released):
                span.fail(ending.code)
        _measure(task, attempt, ending, time.monotonic() - begun)
        return ending

    def _refuse(self, attempt: Attempt, problem: InvalidParams) -> Failure:
        failure = Failure.of(problem)
        self._run(self._ledger.fail(attempt, failure, dead=True))  # its sender will not learn of it
        return failure

    def _run_attempt(self, task: Task, attempt: Attempt) -> Ending:
        """Every way in which an attempt can end, as an `Ending`."""
        try:
            result = self._attempt(attempt, parse_params(task, attempt.params))
            if self._insist(self._ledger.succeed(attempt, result)):
                return result
            self._restore_record(attempt)
            return _superseded(attempt)
        except NoLongerWanted:
            return _superseded(attempt)
        except BrokerUnavailable:
            raise
        except CrossmodalError as e:
            return self._give_up(attempt, e)
        except self._interrupted_by:
            if self._host.is_awaited:
                return self._give_up(attempt, ModelHostUnavailable(
                    "no model host was there for as long as the attempt might run"
                ))  # fmt: skip
            return self._give_up(attempt, TimedOut(
                f"the attempt ran longer than {self._settings.run_time_limit_of(task):g} s: ask "
                "for less, or raise CROSSMODAL_RUN_TIME_LIMIT_S"
            ))  # fmt: skip
        except Exception as e:  # a mistake of ours: the job must still end, and say so
            log.exception("job %s: unexpected error", attempt.job)
            return self._give_up(attempt, CrossmodalError(f"{type(e).__name__}: {e}"))

    def _adopt(self, delivery: Delivery) -> InvalidParams | None:
        """Open the record of a job that plain Celery sent; a job that has a record keeps it.

        Returns what is wrong with the params of a record that was opened.
        """
        job_id = check_job_id(delivery.job)
        problem = None
        try:
            text = fix_seed(parse_params(delivery.task, delivery.raw)).model_dump_json()
        except InvalidParams as e:
            problem, text = e, _excerpt(delivery.raw)
        # A fingerprint is only ever compared for an idempotency key, which there is none of.
        _, is_new = self._run(self._ledger.submit(
            job_id, delivery.task, text, "", bounded=False, expires_in_s=delivery.expires_in_s,
            origin=Origin(traceparent=delivery.traceparent),
        ))  # fmt: skip
        return problem if is_new else None

    def _give_up(self, attempt: Attempt, error: CrossmodalError) -> Ending:
        """Let the job wait for another attempt if that may help, or end it."""
        failure = Failure.of(error)
        counts = _is_to_blame(error, attempt)
        if error.retryable and not (counts and attempt.is_last):
            crashed_with_it = isinstance(error, ModelHostCrashed) and error.batch_size > 0
            alone = crashed_with_it or isinstance(error, TimedOut)
            kept = self._insist(self._ledger.release(attempt, failure, counts=counts, alone=alone))
            return (
                Released(failure, attempt.counted if counts else 1)
                if kept
                else _superseded(attempt)
            )
        dead = not is_callers_fault(error.code)
        ended = self._insist(self._ledger.fail(attempt, failure, dead=dead))
        return failure if ended else _superseded(attempt)

    def _insist(self, tell: Call[bool]) -> bool:
        """Tell the ledger how an attempt ended, for as long as nobody else may have begun one.

        Without this, all that a worker was finishing while Redis restarted would be run again.
        """
        deadline = time.monotonic() + self._settings.lease_s
        with tracing.span("record"):
            while True:
                try:
                    return self._run(tell)
                except BrokerUnavailable:
                    if time.monotonic() >= deadline:
                        raise
                    time.sleep(TELL_AGAIN_S)

    def _attempt(self, attempt: Attempt, params: Params) -> JobResult:
        """What the attempt made, stored. Raises `NoLongerWanted` once the job is not its own."""
        # A folder answers at once, and a thread for it would cost more than it does.
        holds = partial(self._run, self._ledger.holds(attempt))
        wanted = Wanted(holds, None if self._blobs.in_folder else self._threads)
        if isinstance(params, BulkParams):
            return self._bulk.run(attempt, params, wanted)
        return self._single.run(attempt, params, wanted, lambda: self._restore_record(attempt))

    def _restore_record(self, attempt: Attempt) -> None:
        """Put back the `result.json` of the attempt that won, where this one has replaced it."""
        won = self._run(self._ledger.get(attempt.job)).result
        if won is not None:
            self._blobs.put_result(won)


def _is_to_blame(error: CrossmodalError, attempt: Attempt) -> bool:
    """Whether an attempt that ended so counts: what was no fault of the job must not end it."""
    if isinstance(error, ModelHostCrashed) and error.batch_size != 1:
        # It was one of many, or waited behind others: the next attempts will show.
        return attempt.excused >= MAX_EXCUSED
    return not isinstance(error, ModelHostUnavailable)


def _measure(task: Task, attempt: Attempt, ending: Ending, run_s: float) -> None:
    """Count a job that has ended; not an attempt that another one follows."""
    if isinstance(ending, JobResult):
        done = (ending.completed, ending.failed) if task.is_bulk else (1, 0)
        job_ended(task, attempt.queued_s, run_s, *done)
    elif isinstance(ending, Failure):
        job_ended(task, attempt.queued_s, run_s, 0, _items(task, attempt))


def _items(task: Task, attempt: Attempt) -> int:
    try:
        params = parse_params(task, attempt.params)
    except InvalidParams:
        return 1
    return params.items if isinstance(params, BulkParams) else 1


def _superseded(attempt: Attempt) -> Skipped:
    log.warning("job %s: attempt %d is not wanted any more", attempt.job, attempt.number)
    return Skipped("superseded")


def _excerpt(raw: Mapping[str, Any]) -> str:
    text = json.dumps(dict(raw), default=repr)
    if len(text) <= MAX_RECORDED_PARAMS:
        return text
    return json.dumps({"excerpt": text[:MAX_RECORDED_PARAMS]})


def raised(failure: Failure) -> JobFailed:
    """The failure as the exception that Celery and Flower show."""
    return JobFailed(f"{failure.code}: {failure.message}", failure.code, failure.retryable)
