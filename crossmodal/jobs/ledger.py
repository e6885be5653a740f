"""The job ledger: the one source of truth for what became of a job.

Records live in Redis. Every transition is one Lua script that compares before it sets, so
that of two processes that would end a job exactly one does, and the other is told.
"""

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossmodal.errors import (
    IdempotencyConflict,
    InvalidParams,
    JobCanceled,
    QueueFull,
    QueuePaused,
    TooManyQueued,
    WrongState,
)
from crossmodal.jobs import names
from crossmodal.jobs.calls import Call, Steps, call, redis
from crossmodal.jobs.origin import NOBODY, Origin
from crossmodal.jobs.params import BulkParams
from crossmodal.jobs.record import Failure, Job, JobResult, JobState, Progress, likely_gap_s
from crossmodal.jobs.records import JobRecords, not_found
from crossmodal.jobs.server import MemoryGuard
from crossmodal.kinds.queue import Queue
from crossmodal.kinds.task import Task
from crossmodal.settings import Settings

MAX_PARAMS = 65_536  # characters of JSON
CANCELED_TOGETHER = 500  # messages of a batch
WATCHED_S = 10  # that who watches a job is believed to go on, ...
WATCH_S = 3.0  # ... who says so again after this
PAUSED_S = 60.0  # when to submit again to a paused queue that takes nothing
NOBODY_WORKS_S = 60.0  # when to submit again to a full queue that nothing is taken from


@dataclass(frozen=True)
class Attempt:
    """A started attempt; `number` is the fence that its owner must show to end the job.

    `counted` leaves out earlier ones that were no fault of the job; `excused` are those of
    them in which a model host died.
    """

    job: str
    number: int
    params: dict[str, Any]
    created_at: float
    started_at: float
    counted: int
    excused: int
    is_last: bool
    is_suspect: bool
    """Whether a model host died with it: then it must run alone, to harm no other."""
    traceparent: str | None = None
    """Of the request that submitted it (W3C Trace Context)."""

    @property
    def queued_s(self) -> float:
        return self.started_at - self.created_at


@dataclass(frozen=True)
class NotStarted:
    """Why there is nothing to run: a terminal state, `busy`, `exhausted`, `unknown` or `paused`."""

    reason: str


class JobLedger(JobRecords):
    """Job records and their transitions, as calls; each may raise `BrokerUnavailable`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.memory = MemoryGuard(settings)

    # -- submitting ---------------------------------------------------------------------

    @call
    def submit(
        self,
        job_id: str,
        task: Task,
        params_json: str,
        fingerprint: str,
        *,
        model: str | None = None,
        message: str = "",
        idempotency_key: str | None = None,
        expires_in_s: float | None = None,
        bounded: bool = True,
        batch: BulkParams | None = None,
        origin: Origin = NOBODY,
        priority: int = 0,
        keep_s: float | None = None,
    ) -> Steps[tuple[str, bool]]:
        """Create a job and send its message, both or neither: its id, and whether it is new.

        It waits in the queue of `model`, or of the default one. With an `idempotency_key` that was
        used before for the same request, the id is that of the earlier job. Raises
        `IdempotencyConflict` where that was another request, and
        `QueueFull` (never, when not `bounded`), and `BrokerFull`. A bulk job joins its `batch`;
        `JobCanceled` is raised where nobody wants more of that. Messages of one owner wait apart
        while the queue holds a batch's worth of them: `priority` (-1, 0 or 1) orders those, and in
        the whole queue those that nobody owns. The record is kept for `keep_s` after its end.
        """
        if len(params_json) > MAX_PARAMS:
            raise InvalidParams(
                f"the params have {len(params_json)} characters of JSON, {MAX_PARAMS} are allowed"
            )
        if expires_in_s is not None and not 0 <= expires_in_s < float("inf"):
            raise InvalidParams(
                f"expires_in_s is {expires_in_s}: give a finite number of seconds, 0 or more"
            )
        key = names.job_key(self._prefix, job_id)
        guard = key
        if idempotency_key is not None:
            guard = names.idempotency_key(self._prefix, idempotency_key)
        if bounded:
            yield from self.memory.check()
        queue = str(Queue(task, model))
        limit = self._settings.max_queue_length
        reply = yield self._on_job(
            "submit",
            job_id,
            task,
            queue,
            params_json,
            fingerprint,
            "" if expires_in_s is None else expires_in_s,
            limit if bounded else "",
            message,
            *((batch.batch, batch.number, batch.items, batch.most) if batch else ("", 0, 0, 0)),
            origin.owner,
            origin.max_queued or "",
            self._settings.max_batch,
            origin.traceparent or "",
            origin.webhook.model_dump_json() if origin.webhook else "",
            priority,
            "" if keep_s is None else math.ceil(keep_s),
            int(bounded and not self._settings.paused_queues_accept),
            guard=guard,
        )
        if reply[0] == "paused":
            raise QueuePaused(f"the queue {queue} is paused: submit again later", PAUSED_S)
        if reply[0] == "full":
            raise _queue_full(queue, limit, *reply[1:])
        if reply[0] == "owner_full":
            raise TooManyQueued(
                f"{reply[1]} jobs of this API key wait for {queue}, {origin.max_queued} are "
                "allowed: submit again when some have been run"
            )
        if reply[0] == "canceled":
            raise JobCanceled(
                f"the batch {reply[1]!r} was canceled: send the rest as another batch"
            )
        if reply[0] == "conflict":
            raise IdempotencyConflict(
                f"the idempotency key {_as_sent(idempotency_key, origin)!r} belongs to job "
                f"{reply[1]}, which was submitted with other params: use another key"
            )
        return str(reply[1]), reply[0] == "created"

    @call
    def cancel(self, job_id: str) -> Steps[JobState]:
        """Cancel a job that has not ended; returns the state it is in now."""
        if not names.is_job_id(job_id):
            raise not_found(job_id)
        reply = yield self._on_job("cancel", job_id, self._retention)
        if reply[0] == "unknown":
            raise not_found(job_id)
        return JobState(reply[0])

    @call
    def pause(self, queue: str) -> Steps[None]:
        """Have nothing more of a queue started; what runs ends, and what waits stays."""
        seconds, micros = yield redis.time()
        yield redis.hsetnx(names.paused_key(self._prefix), queue, f"{seconds + micros / 1e6:.6f}")

    @call
    def resume(self, queue: str) -> Steps[None]:
        """Have a queue's jobs started again."""
        yield redis.hdel(names.paused_key(self._prefix), queue)

    @call
    def paused(self) -> Steps[frozenset[str]]:
        """The queues that are paused."""
        return frozenset((yield redis.hgetall(names.paused_key(self._prefix))))

    # -- running ------------------------------------------------------------------------

    @call
    def start(
        self, job_id: str, worker: str, *, again: bool = False
    ) -> Steps[Attempt | NotStarted]:
        """Begin an attempt, unless the job has ended, is run by a live one, or has none left.

        An attempt is alive for `lease_s`, and as long as `renew` says so. Asked `again`, because
        the answer was lost, it is the one that this worker has begun by then.
        """
        reply = yield self._on_job(
            "start",
            job_id,
            worker,
            self._settings.max_attempts,
            self._settings.lease_s,
            self._retention,
            self._settings.max_batch,
            int(again),
        )
        if reply[0] != "run":
            return NotStarted(str(reply[0]))
        _, number, params, created_at, started_at, counted, excused, alone, traceparent = reply
        return Attempt(
            job_id,
            number,
            json.loads(params),
            float(created_at),
            float(started_at),
            counted,
            excused,
            counted >= self._settings.max_attempts,
            bool(alone),
            traceparent or None,
        )

    def succeed(self, attempt: Attempt, result: JobResult) -> Call[bool]:
        """Record the result; False when the attempt is no longer the one that may."""
        text = result.model_dump_json()
        done = result.completed
        return self._finish(attempt, JobState.SUCCEEDED, "result", text, "", completed=done)

    def fail(self, attempt: Attempt, failure: Failure, *, dead: bool = False) -> Call[bool]:
        """End the job without a result; False when the attempt is no longer the one that may.

        A `dead` one is put on the list of dead letters.
        """
        text = failure.model_dump_json()
        return self._finish(attempt, JobState.FAILED, "failure", text, failure.code, dead)

    @call
    def progress(self, attempt: Attempt, progress: Progress) -> Steps[bool]:
        """Tell how far the attempt is; whether somebody watches.

        Nobody does who is no longer the one that runs the job: there is nothing to be told then.
        """
        text = progress.model_dump_json(exclude_none=True)
        reply = yield self._on_job("progress", attempt.job, attempt.number, text)
        return bool(reply[0] == "ok" and reply[1])

    @call
    def watch(self, job_ids: Collection[str]) -> Steps[None]:
        """Say that somebody follows how far these jobs are; to be said again every few seconds."""
        keys = [names.watched_key(self._prefix, job_id) for job_id in job_ids]
        if keys:
            yield [redis.set(key, 1, ex=WATCHED_S) for key in keys]

    @call
    def refuse(self, job_id: str, failure: Failure) -> Steps[bool]:
        """End a job that waits and cannot be run, as a dead letter; False if it does not wait."""
        attempt = yield from self.start(job_id, "nobody")
        if isinstance(attempt, NotStarted):
            return False
        return (yield from self.fail(attempt, failure, dead=True))

    @call
    def release(
        self, attempt: Attempt, failure: Failure, *, counts: bool = True, alone: bool = False
    ) -> Steps[bool]:
        """Put a running job back in its place in the queue, for another attempt."""
        reply = yield self._on_job(
            "release",
            attempt.job,
            attempt.number,
            int(counts),
            failure.model_dump_json(),
            failure.code,
            int(alone),
        )
        return bool(reply[0] == "ok")

    @call
    def disown(
        self, worker: str, queues: Iterable[str], code: str = "worker_stopped"
    ) -> Steps[list[str]]:
        """Put back all that a worker ran of these queues; its attempts do not count."""
        replies = yield [
            self._on_key("disown", self._queue_key(queue, "running"), worker, queue, code)
            for queue in queues
        ]
        return [job_id for found in replies for job_id in found]

    def renew(self, worker: str, job_ids: Collection[str]) -> Call[None]:
        """Keep the attempts of `worker` at these jobs alive for another `lease_s`."""
        return self._lease(worker, job_ids, self._settings.lease_s)

    def abandon(
        self, worker: str, job_ids: Collection[str], failure: Failure | None = None
    ) -> Call[None]:
        """Say that the attempts of `worker` at these jobs have died, before their leases end."""
        return self._lease(worker, job_ids, "", failure.model_dump_json() if failure else "")

    @call
    def _lease(
        self, worker: str, job_ids: Collection[str], lease_s: float | str, failure: str = ""
    ) -> Steps[None]:
        if job_ids:
            key = names.leases_key(self._prefix)
            yield self._on_key("renew", key, worker, lease_s, failure, *job_ids)

    @call
    def holds(self, attempt: Attempt) -> Steps[bool]:
        """Whether the attempt is still the one that may end its job."""
        return not (yield from self.lost([attempt]))

    @call
    def lost(self, attempts: Sequence[Attempt]) -> Steps[list[Attempt]]:
        """Those of some running attempts that may not end their jobs any more."""
        replies = yield [
            redis.hmget(names.job_key(self._prefix, attempt.job), "state", "attempt")
            for attempt in attempts
        ]
        return [
            attempt
            for attempt, reply in zip(attempts, replies, strict=True)
            if reply != [JobState.RUNNING, str(attempt.number)]
        ]

    @call
    def is_leased(self, job_id: str) -> Steps[bool]:
        """Whether an attempt at the job is alive."""
        until, (seconds, micros) = yield [
            redis.zscore(names.leases_key(self._prefix), job_id),
            redis.time(),
        ]
        left_s = (until or 0.0) - seconds - micros / 1e6
        return bool(0 < left_s <= 2 * self._settings.lease_s)  # longer: Redis's clock was put back

    @call
    def requeue(self, job: Job, message: str) -> Steps[bool]:
        """Send a message for a job that has none, unless something has happened to it since."""
        sent_at = "" if job.sent_at is None else f"{job.sent_at:.6f}"
        reply = yield self._on_job("requeue", job.id, job.attempt, sent_at, job.queue, message)
        return bool(reply[0] == "ok")

    @call
    def promote(self, queue: str) -> Steps[int]:
        """Send held messages that nothing is before any more; returns how many."""
        key = self._queue_key(queue, "owners")
        return int((yield self._on_key("promote", key, queue, self._settings.max_batch)))

    @call
    def limits(self, batch_id: str, wanted: Mapping[Queue, int]) -> Steps[dict[Queue, int]]:
        """How many items a batch's messages may have, by queue of items: as was `wanted` first.

        They hold for all from the beginning: the messages of all are counted together, so that
        another limit of one queue would change the places of the others, too.
        """
        key = names.batch_key(self._prefix, batch_id)
        pairs = [part for queue, most in wanted.items() for part in (str(queue.in_bulk), most)]
        known = yield self._on_key("limits", key, batch_id, self._retention, *pairs)
        return dict(zip(wanted, known, strict=True))

    @call
    def cancel_batch(self, batch_id: str, *, ahead: bool = False) -> Steps[bool]:
        """Cancel the messages of a batch that have not ended, and take no more of them.

        False where none was ever sent; with `ahead` none will be.
        """
        kept_s = self._retention if ahead else ""
        key = names.batch_key(self._prefix, batch_id)
        sent = yield self._on_key("cancel_batch", key, batch_id, kept_s)
        for first in range(0, sent, CANCELED_TOGETHER):  # others are answered in between
            yield [
                self._on_job("cancel", names.bulk_job_id(batch_id, number), self._retention)
                for number in range(first, min(sent, first + CANCELED_TOGETHER))
            ]
        return bool(sent)

    @call
    def remove(self, job_id: str) -> Steps[None]:
        """Delete the record of a job that has ended. Raises `JobNotFound` or `WrongState`."""
        yield from self.get(job_id)
        reply = yield self._on_job("remove", job_id, self._settings.max_batch)
        if reply[0] == "unknown":
            raise not_found(job_id)
        if reply[0] == "refused":
            raise WrongState(f"job {job_id} is {reply[1]}: cancel it before you delete it")

    @call
    def forget(self, job_id: str, queue: str) -> Steps[None]:
        """Take a job off its queue's lists whose record somebody has deleted."""
        lists = [self._queue_key(queue, part) for part in ("queued", "running")]
        yield [redis.zrem(key, job_id) for key in (*lists, names.leases_key(self._prefix))]

    @call
    def _finish(
        self,
        attempt: Attempt,
        state: JobState,
        field: str,
        text: str,
        code: str,
        dead: bool = False,
        completed: int = 0,
    ) -> Steps[bool]:
        reply = yield self._on_job(
            "finish",
            attempt.job,
            attempt.number,
            state,
            field,
            text,
            code,
            self._retention,
            int(dead),
            completed,
        )
        return bool(reply[0] == "ok")


def _as_sent(idempotency_key: str | None, origin: Origin) -> str:
    """A key as its sender wrote it: those of owners are kept apart by their ids."""
    key = idempotency_key or ""
    return key.removeprefix(f"{origin.owner}:") if origin.owner else key


def _queue_full(
    queue: str,
    limit: int,
    depth: int,
    messages: int,
    running: int,
    mean_run_s: str,
    mean_gap_s: str,
) -> QueueFull:
    """With the time in which a twentieth of the queue will have been run, as it runs now.

    Either as many jobs wait as may, or too many messages of jobs that have ended lie there.
    """
    found, held = depth, f"{depth} jobs, {limit} are allowed"
    if depth < limit:
        of_ended = "most of jobs that were canceled or have expired"
        found, held = messages, f"{messages} messages, {of_ended}, where {limit} jobs are allowed"
    gap, run = (float(mean) if mean else None for mean in (mean_gap_s, mean_run_s))
    gap_s = likely_gap_s(gap, run, running) if running else None
    room = found - limit + max(1, limit // 20)
    retry_after_s = NOBODY_WORKS_S
    if gap_s is not None:
        retry_after_s = min(3_600.0, max(1.0, round(room * gap_s, 1)))
    return QueueFull(
        f"the queue {queue} holds {held}: submit again in {retry_after_s:g} s, add workers, or "
        "raise CROSSMODAL_MAX_QUEUE_LENGTH",
        retry_after_s,
    )
