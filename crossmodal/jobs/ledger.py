"""The job ledger: the one source of truth for a job's state.

Records live in Redis. Every transition is one Lua script that compares before it sets. If two
processes try to end a job, exactly one succeeds and the other gets a refusal.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossmodal.errors import WrongState
from crossmodal.jobs import names
from crossmodal.jobs.calls import Call, Steps, call, redis
from crossmodal.jobs.record import Failure, Job, JobResult, JobState, Progress
from crossmodal.jobs.records import JobRecords, not_found
from crossmodal.jobs.server import MemoryGuard
from crossmodal.jobs.submission import Submission
from crossmodal.kinds.queue import Queue
from crossmodal.settings import Settings

CANCELED_TOGETHER = 500  # messages of a batch per pipeline
WATCHED_S = 10  # how long a watch mark lasts, ...
WATCH_S = 3.0  # ... and how often a watcher renews it


@dataclass(frozen=True)
class Attempt:
    """A started attempt; `number` is the fence that its worker must present to end the job.

    `counted` is the number of attempts without those that were no fault of the job; `excused`
    is how many of those ended with the death of a model host.
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
    """Whether a model host died running the job, so that it must run alone in its batch."""
    traceparent: str | None = None
    """The traceparent of the submitting request (W3C Trace Context)."""

    @property
    def queued_s(self) -> float:
        return self.started_at - self.created_at


@dataclass(frozen=True)
class NotStarted:
    """The reason no attempt began: a terminal state, `busy`, `exhausted`, `unknown`, `paused`."""

    reason: str


class JobLedger(JobRecords):
    """Job records and their transitions; methods return calls, see `JobRecords`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.memory = MemoryGuard(settings)

    # -- submitting ---------------------------------------------------------------------

    @call
    def submit(self, job: Submission) -> Steps[tuple[str, bool]]:
        """Create a job and send its message atomically; return its id and whether it is new.

        An owner's messages beyond a batch's worth in the queue are held in a backlog.

        Raises `IdempotencyConflict` if the key was used for another request, `JobCanceled` if the
        batch was canceled, `TooManyQueued` at the owner's limit, and, if it is bounded,
        `QueueFull`, `QueuePaused` or `BrokerFull`.
        """
        job.check()
        if job.bounded:
            yield from self.memory.check()
        guard = job.guard(self._prefix)
        reply = yield self._on_job("submit", job.job_id, *job.args(self._settings), guard=guard)
        why, *found = reply
        if error := job.refusal(why, found, self._settings.max_queue_length):
            raise error
        return str(found[0]), why == "created"

    @call
    def cancel(self, job_id: str) -> Steps[JobState]:
        """Cancel a job that has not ended; return its state now. Raises `JobNotFound`."""
        if not names.is_job_id(job_id):
            raise not_found(job_id)
        reply = yield self._on_job("cancel", job_id, self._retention)
        if reply[0] == "unknown":
            raise not_found(job_id)
        return JobState(reply[0])

    @call
    def pause(self, queue: str) -> Steps[None]:
        """Stop starting jobs of a queue; running jobs finish, waiting jobs stay."""
        seconds, micros = yield redis.time()
        yield redis.hsetnx(names.paused_key(self._prefix), queue, f"{seconds + micros / 1e6:.6f}")

    @call
    def resume(self, queue: str) -> Steps[None]:
        """Start a paused queue's jobs again."""
        yield redis.hdel(names.paused_key(self._prefix), queue)

    @call
    def paused(self) -> Steps[frozenset[str]]:
        """Return the paused queues."""
        return frozenset((yield redis.hgetall(names.paused_key(self._prefix))))

    # -- running ------------------------------------------------------------------------

    @call
    def start(
        self, job_id: str, worker: str, *, again: bool = False
    ) -> Steps[Attempt | NotStarted]:
        """Begin an attempt, unless the job has ended, is running, is paused or has none left.

        The attempt's lease lasts `lease_s` and is extended by `renew`. With `again`, a retry after
        a lost reply, the result is the attempt that this worker has already begun, if any.
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
        """Record the result; False if the attempt no longer holds the job."""
        text = result.model_dump_json()
        done = result.completed
        return self._finish(attempt, JobState.SUCCEEDED, "result", text, "", completed=done)

    def fail(self, attempt: Attempt, failure: Failure, *, dead: bool = False) -> Call[bool]:
        """End the job without a result; False if the attempt no longer holds the job.

        A `dead` job becomes a dead letter.
        """
        text = failure.model_dump_json()
        return self._finish(attempt, JobState.FAILED, "failure", text, failure.code, dead)

    @call
    def progress(self, attempt: Attempt, progress: Progress) -> Steps[bool]:
        """Record and publish the attempt's progress; return whether a client watches the job.

        False also if the attempt no longer holds the job: nothing is published then.
        """
        text = progress.model_dump_json(exclude_none=True)
        reply = yield self._on_job("progress", attempt.job, attempt.number, text)
        return bool(reply[0] == "ok" and reply[1])

    @call
    def watch(self, job_ids: Collection[str]) -> Steps[None]:
        """Mark these jobs as watched; renew the mark every `WATCH_S`."""
        keys = [names.watched_key(self._prefix, job_id) for job_id in job_ids]
        if keys:
            yield [redis.set(key, 1, ex=WATCHED_S) for key in keys]

    @call
    def refuse(self, job_id: str, failure: Failure) -> Steps[bool]:
        """End a waiting job that cannot be run as a dead letter; False if it does not wait."""
        attempt = yield from self.start(job_id, "nobody")
        if isinstance(attempt, NotStarted):
            return False
        return (yield from self.fail(attempt, failure, dead=True))

    @call
    def release(
        self, attempt: Attempt, failure: Failure, *, counts: bool = True, alone: bool = False
    ) -> Steps[bool]:
        """Return a running job to its place in the queue for another attempt."""
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
        """Return a worker's running jobs of these queues to them; the attempts do not count."""
        replies = yield [
            self._on_key("disown", self._queue_key(queue, "running"), worker, queue, code)
            for queue in queues
        ]
        return [job_id for found in replies for job_id in found]

    def renew(self, worker: str, job_ids: Collection[str]) -> Call[None]:
        """Renew the leases of `worker` on these jobs for another `lease_s`."""
        return self._lease(worker, job_ids, self._settings.lease_s)

    def abandon(
        self, worker: str, job_ids: Collection[str], failure: Failure | None = None
    ) -> Call[None]:
        """End the leases of `worker` on these jobs early, because their attempts have died."""
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
        """Return whether the attempt still holds its job."""
        return not (yield from self.lost([attempt]))

    @call
    def lost(self, attempts: Sequence[Attempt]) -> Steps[list[Attempt]]:
        """Return those of the attempts that no longer hold their jobs."""
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
        """Return whether the job has a live lease."""
        until, (seconds, micros) = yield [
            redis.zscore(names.leases_key(self._prefix), job_id),
            redis.time(),
        ]
        left_s = (until or 0.0) - seconds - micros / 1e6
        return bool(0 < left_s <= 2 * self._settings.lease_s)  # longer: Redis's clock was put back

    @call
    def requeue(self, job: Job, message: str) -> Steps[bool]:
        """Send a message for a job that has lost its own; False if the job has changed since."""
        sent_at = "" if job.sent_at is None else f"{job.sent_at:.6f}"
        lease_s = self._settings.lease_s
        args = job.attempt, sent_at, job.queue, message, lease_s
        reply = yield self._on_job("requeue", job.id, *args)
        return bool(reply[0] == "ok")

    @call
    def promote(self, queue: str) -> Steps[int]:
        """Send held messages that nothing blocks any more; return how many."""
        key = self._queue_key(queue, "owners")
        return int((yield self._on_key("promote", key, queue, self._settings.max_batch)))

    @call
    def limits(self, batch_id: str, wanted: Mapping[Queue, int]) -> Steps[dict[Queue, int]]:
        """Fix and return the max items per message of a batch, by queue; the first `wanted` wins.

        Limits must not change later: messages of all queues share one numbering, so a new limit
        of one queue would renumber the messages of the others.
        """
        key = names.batch_key(self._prefix, batch_id)
        pairs = [part for queue, most in wanted.items() for part in (str(queue.in_bulk), most)]
        known = yield self._on_key("fix_batch_limits", key, batch_id, self._retention, *pairs)
        return dict(zip(wanted, known, strict=True))

    @call
    def cancel_batch(self, batch_id: str, *, ahead: bool = False) -> Steps[bool]:
        """Cancel the messages of a batch that have not ended, and accept no more.

        False if none was ever sent; such a batch is marked as canceled only with `ahead`.
        """
        kept_s = self._retention if ahead else ""
        key = names.batch_key(self._prefix, batch_id)
        sent = yield self._on_key("cancel_batch", key, batch_id, kept_s)
        for first in range(0, sent, CANCELED_TOGETHER):  # other clients are served in between
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
        """Remove a job whose record was deleted from its queue's sets."""
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
