"""One attempt at one job: a coroutine that runs from its start in the ledger to its end.

start → fetch → decode → infer → encode → store → finish. A cancellation, the time limit and the
loss of the fence all end it early in one way: the `CancelToken` cancels this coroutine. This
module is independent of Celery.
"""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from crossmodal import logs, tracing
from crossmodal.errors import (
    BrokerUnavailable,
    CrossmodalError,
    InvalidParams,
    JobNotFound,
    ModelBroken,
    ModelHostCrashed,
    ModelHostUnavailable,
    TimedOut,
    is_callers_fault,
)
from crossmodal.jobs.calls import Call
from crossmodal.jobs.ledger import Attempt, JobLedger, NotStarted
from crossmodal.jobs.message import broker_priority, message_for, message_of
from crossmodal.jobs.models import Models
from crossmodal.jobs.names import check_job_id
from crossmodal.jobs.origin import Origin
from crossmodal.jobs.params import BulkParams, Params, fix_seed, parse_params, recorded
from crossmodal.jobs.record import Failure, JobResult, JobState
from crossmodal.jobs.runners import AsyncRunner
from crossmodal.jobs.submission import Submission
from crossmodal.kinds.base import build
from crossmodal.kinds.queue import Queue
from crossmodal.kinds.task import Task
from crossmodal.machine import is_shortage
from crossmodal.metrics import job_ended
from crossmodal.settings import Settings
from worker.blobs import Blobs
from worker.bulk import BulkRun
from worker.cancel import CancelToken, InHand, Superseded
from worker.decoders.pool import Decoders
from worker.decoders.process import DecoderUnavailable
from worker.endings import Busy, Elsewhere, Ending, Released, Skipped, TakenMessage
from worker.gate import Gate
from worker.hosts import Hosts
from worker.items import Items
from worker.outages import PatientRunner, StoreWatch, is_outage
from worker.single import SingleRun

log = logging.getLogger(__name__)

PAUSED_S = 1.0  # by then this worker has stopped consuming a paused queue
MAX_EXCUSED = 10  # host crashes that do not count against a job; each further one does
MAX_OUTAGES = 1_000  # uncounted attempts in an outage, half a minute apart: eight hours
MAX_RECORDED_PARAMS = 4_096  # characters of invalid params that the record keeps


class JobRunner:
    """The runner of a worker's jobs; one per event loop.

    `hosts` and `decoders` default to those that the settings name.
    """

    def __init__(
        self,
        settings: Settings,
        hosts: Hosts | None = None,
        decoders: Decoders | None = None,
        gate: Gate | None = None,
    ) -> None:
        # No retries: the ledger would take a repeated `start` for that of a second message.
        self._hasty = AsyncRunner(settings, retries=0, what="worker")
        self._redis = PatientRunner(self._hasty)
        self._settings = settings
        self._ledger = JobLedger(settings)
        self._models = Models(settings)
        self.hosts = hosts or Hosts.of_settings(settings)
        self._decoders = decoders or Decoders(settings)
        self._blobs = Blobs(settings)
        self._items = Items(settings, self._blobs, self._decoders)
        self._single = SingleRun(self._blobs, self._items, self._hasty, self._ledger)
        self._bulk = BulkRun(settings, self._blobs, self._items, self.hosts)
        self._store = StoreWatch(self._blobs, gate or Gate())
        self._in_hand = InHand(self._hasty, self._ledger)

    async def close(self) -> None:
        self._in_hand.close()
        self._store.close()
        await self._single.close()
        self._blobs.close()
        await self._decoders.close()
        await self.hosts.close()
        await self._hasty.close()

    async def run(self, taken: TakenMessage) -> Ending:
        """Run one attempt at the job.

        Waits while Redis is unavailable. Raises `BrokerUnavailable` for a call that Redis can
        never carry out, `InvalidParams` for an invalid job id, and an internal error where the
        attempt could not start; the job has then failed.
        """
        try:
            return await self._run(taken)
        except (BrokerUnavailable, InvalidParams):
            raise
        except Exception as e:  # fail the job, else its message is redelivered forever
            failure = Failure.of(_internal(e))
            await self._redis.run(self._ledger.refuse(taken.job, failure))
            raise

    async def _run(self, taken: TakenMessage) -> Ending:
        queue, problem = _queue_of(taken), None
        if not taken.is_recorded:
            queue, problem = await self._adopt(taken)
        if problem is None and not self.hosts.serves(queue):
            return Elsewhere() if taken.is_recorded else Skipped("superseded")
        with self.hosts.busy(queue):
            return await self._begin(taken, problem)

    async def _begin(self, taken: TakenMessage, problem: InvalidParams | None) -> Ending:
        start = partial(self._ledger.start, taken.job, taken.worker)
        attempt = await self._redis.run(start(), again=start(again=True))
        if isinstance(attempt, NotStarted):
            log.info("job %s is not started: %s", taken.job, attempt.reason)
            if attempt.reason == "paused":
                return await self._put_back(taken, problem)
            return Busy() if attempt.reason == "busy" else await self._outcome(taken.job)
        ending = await self._observe(taken.task, attempt, problem)
        return await self._outcome(taken.job) if isinstance(ending, Skipped) else ending

    async def _put_back(self, taken: TakenMessage, problem: InvalidParams | None) -> Ending:
        """Return a job of a paused queue to its place in the queue, with a new message."""
        await asyncio.sleep(PAUSED_S)
        try:
            job = await self._redis.run(self._ledger.get(taken.job))
        except JobNotFound:
            job = None
        if job is None or job.state.is_terminal:  # `start` then sends its owner's next message
            return await self._begin(taken, problem)
        priority = broker_priority(job.priority, job.owner)
        message = message_for(Queue.parse(job.queue), job.id, job.params, priority)
        await self._redis.run(self._ledger.requeue(job, message))
        return Skipped("superseded")

    async def _outcome(self, job_id: str) -> Ending:
        """Return how the job ended through another message, for clients waiting on this one."""
        try:
            job = await self._redis.run(self._ledger.get(job_id))
        except JobNotFound:
            return Skipped("unknown")
        ended = {JobState.SUCCEEDED: job.result, JobState.FAILED: job.failure}.get(job.state)
        return ended or Skipped(job.state if job.state.is_terminal else "superseded")

    async def _observe(self, task: Task, attempt: Attempt, problem: InvalidParams | None) -> Ending:
        """Run the attempt, and record it in the log, the trace of its job and the metrics."""
        begun = time.monotonic()
        with (
            logs.context(job=attempt.job, attempt=attempt.number, task=task),
            tracing.span(
                "job.attempt",
                attempt.traceparent,
                kind="consumer",
                job=attempt.job,
                attempt=attempt.number,
                task=task,
                queued_s=attempt.queued_s,
            ) as span,
        ):
            if problem is None:
                ending = await self._run_attempt(task, attempt)
            else:
                ending = await self._refuse(attempt, problem)
            if isinstance(ending, Failure | Released):
                span.fail(ending.code)
        _measure(task, attempt, ending, time.monotonic() - begun)
        return ending

    async def _refuse(self, attempt: Attempt, problem: InvalidParams) -> Failure:
        failure = Failure.of(problem)
        # A dead letter, because the sender is not notified.
        await self._redis.run(self._ledger.fail(attempt, failure, dead=True))
        return failure

    async def _run_attempt(self, task: Task, attempt: Attempt) -> Ending:
        """Run the attempt, and return every way in which it can end as an `Ending`."""
        try:
            result = await self._work(task, attempt)
            done = await self._record(self._ledger.succeed(attempt, result))
            return result if done else _superseded(attempt)
        except Superseded:
            return _superseded(attempt)
        except BrokerUnavailable:
            raise
        except CrossmodalError as e:
            return await self._give_up(attempt, e)
        except Exception as e:  # an internal error: the job must still end, and report it
            log.exception("job %s: unexpected error", attempt.job)
            return await self._give_up(attempt, _internal(e))

    async def _adopt(self, taken: TakenMessage) -> tuple[Queue, InvalidParams | None]:
        """Create the record of a job that plain Celery sent, unless it has one.

        Returns the queue of such jobs, and what is wrong with the params of a new record. If this
        worker does not serve that queue, the job has been sent there.
        """
        job_id = check_job_id(taken.job)
        queue, message, problem = _queue_of(taken), "", None
        try:
            params, queue = await self._checked(taken)
            text = json.dumps(recorded(params))
            message = "" if self.hosts.serves(queue) else message_of(job_id, params, queue.model)
        except (InvalidParams, ModelBroken) as e:
            problem, text = InvalidParams(str(e)), _excerpt(taken.raw)
            problem.code = e.code
        # No fingerprint: it is compared only for an idempotency key, and there is none.
        _, is_new = await self._redis.run(
            self._ledger.submit(
                Submission(
                    job_id,
                    taken.task,
                    text,
                    "",
                    bounded=False,
                    expires_in_s=taken.expires_in_s,
                    origin=Origin(traceparent=taken.traceparent),
                    model=queue.model,
                    message=message,
                )
            )
        )
        if message and not is_new:  # redelivered, and its model is no longer here
            job = await self._redis.run(self._ledger.get(job_id))
            await self._redis.run(self._ledger.requeue(job, message))
        return queue, problem if is_new else None

    async def _checked(self, taken: TakenMessage) -> tuple[Params, Queue]:
        """Return the checked params of a job that plain Celery sent, and its queue."""
        task, raw = taken.task, taken.raw
        if taken.has_positional:
            raise InvalidParams("the message has positional arguments: give all params by name")
        known = await self._redis.run(self._models.known())
        if task.is_bulk:
            bulk = parse_params(task, raw)
            return bulk, known.queue(task, {"model": bulk.model})
        params = fix_seed(known.build(task.kind, raw))
        return params, known.queue(task, {"model": params.model})

    async def _give_up(self, attempt: Attempt, error: CrossmodalError) -> Ending:
        """Release the job for another attempt if that may help; otherwise end it."""
        failure = Failure.of(error)
        self._store.note(error)
        counts = _is_to_blame(error, attempt)
        if error.retryable and not (counts and attempt.is_last):
            crashed_with_it = isinstance(error, ModelHostCrashed) and error.batch_size > 0
            alone = crashed_with_it or isinstance(error, TimedOut)
            kept = await self._record(
                self._ledger.release(attempt, failure, counts=counts, alone=alone)
            )
            if kept or await self._is_released(attempt):
                return Released(failure, attempt.number)
            return _superseded(attempt)
        dead = not is_callers_fault(error.code)
        ended = await self._record(self._ledger.fail(attempt, failure, dead=dead))
        return failure if ended else _superseded(attempt)

    async def _record(self, how: Call[bool]) -> bool:
        """Record how an attempt ended; return whether it still held the fence."""
        with tracing.span("record"):
            return await self._redis.run(how)

    async def _is_released(self, attempt: Attempt) -> bool:
        """Return whether the job is queued as this attempt left it: then only a reply was lost."""
        try:
            job = await self._redis.run(self._ledger.get(attempt.job))
        except JobNotFound:
            return False
        return job.state is JobState.QUEUED and job.attempt == attempt.number

    # -- work -----------------------------------------------------------------------------

    async def _work(self, task: Task, attempt: Attempt) -> JobResult:
        """Return the stored result. Raises `Superseded`, `TimedOut` and the job's own errors."""
        token = CancelToken(attempt, self._settings.run_time_limit_of(task))
        with self._in_hand.watching(token):
            async with token.held():
                if task.is_bulk:
                    return await self._bulk.run(token, build(BulkParams, attempt.params))
                return await self._single.run(token, task, self.hosts)


def _internal(error: Exception) -> CrossmodalError:
    """Return an unforeseen exception as an error with a code."""
    ours = CrossmodalError(f"{type(error).__name__}: {error}")
    ours.retryable = isinstance(error, OSError | MemoryError) or is_shortage(error)
    ours.__cause__ = error
    return ours


def _queue_of(taken: TakenMessage) -> Queue:
    """Return the message's queue if it is one of this task, else the task's default queue."""
    with suppress(ValueError):  # the plain Celery queue names no task
        found = Queue.parse(taken.queue)
        if found.task == taken.task:
            return found
    return Queue(taken.task)


def _is_to_blame(error: CrossmodalError, attempt: Attempt) -> bool:
    """Return whether a failed attempt counts: only the job's own faults may end it."""
    if isinstance(error, ModelHostCrashed) and error.batch_size != 1:
        # It shared the batch or was not on the device: later attempts show whether it is the cause.
        return attempt.excused >= MAX_EXCUSED
    is_short = isinstance(error, DecoderUnavailable) or is_shortage(error.__cause__)
    if is_short or is_outage(error):
        # A failure that lasts for hours is no outage: this job's picture may be the cause.
        return attempt.number - attempt.counted >= MAX_OUTAGES
    return not isinstance(error, ModelHostUnavailable)


def _measure(task: Task, attempt: Attempt, ending: Ending, run_s: float) -> None:
    """Count a job that has ended, but no attempt that another one follows."""
    if isinstance(ending, JobResult):
        done = (ending.completed, ending.failed) if task.is_bulk else (1, 0)
        job_ended(task, attempt.queued_s, run_s, *done)
    elif isinstance(ending, Failure):
        job_ended(task, attempt.queued_s, run_s, 0, _items(task, attempt))


def _items(task: Task, attempt: Attempt) -> int:
    items = attempt.params.get("items") if task.is_bulk else 1
    return items if isinstance(items, int) else 1


def _superseded(attempt: Attempt) -> Skipped:
    log.warning("job %s: attempt %d is superseded", attempt.job, attempt.number)
    return Skipped("superseded")


def _excerpt(raw: Mapping[str, Any]) -> str:
    text = json.dumps(dict(raw), default=repr)
    if len(text) <= MAX_RECORDED_PARAMS:
        return text
    return json.dumps({"excerpt": text[:MAX_RECORDED_PARAMS]})
