"""The job ledger: the one source of truth for what became of a job.

Records live in Redis. Every transition is one Lua script that compares before it sets, so
that of two processes that would end a job exactly one does, and the other is told.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from redis import Redis

from crossmodal.errors import IdempotencyConflict, InvalidParams, JobNotFound, QueueFull
from crossmodal.jobs import names
from crossmodal.jobs.connection import broker_errors, connect
from crossmodal.jobs.names import Task
from crossmodal.jobs.params import BulkParams
from crossmodal.jobs.record import (
    Failure,
    Job,
    JobEvent,
    JobResult,
    JobState,
    JobStatus,
    QueueStatus,
)
from crossmodal.jobs.scripts import script
from crossmodal.jobs.server import MemoryGuard
from crossmodal.settings import Settings

SCAN_COUNT = 1_000
MOST_HISTORY = 100
INPUT_FIELDS = {  # of params, where they name a blob
    Task.IMG2TXT: "image", Task.TXT2IMG_BULK: "input", Task.IMG2TXT_BULK: "input",
}  # fmt: skip
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

    @property
    def queued_s(self) -> float:
        return self.started_at - self.created_at


@dataclass(frozen=True)
class NotStarted:
    """Why there is nothing to run: a terminal state, `busy`, `exhausted` or `unknown`."""

    reason: str


class JobLedger:
    """Job records and their transitions. Every method may raise `BrokerUnavailable`."""

    def __init__(self, settings: Settings, redis: Redis | None = None) -> None:
        self._settings = settings
        self._prefix = settings.key_prefix
        # redis-py types every reply as perhaps awaitable; ours never are.
        self._redis: Any = redis or connect(settings)
        self._memory = MemoryGuard(settings, self._redis)
        self._scripts = {
            name: self._redis.register_script(script(name))
            for name in (
                "submit",
                "start",
                "finish",
                "release",
                "requeue",
                "disown",
                "cancel",
                "expire",
                "renew",
                "bury",
            )
        }

    def close(self) -> None:
        self._redis.close()

    # -- submitting ---------------------------------------------------------------------

    def submit(
        self,
        job_id: str,
        task: Task,
        params_json: str,
        fingerprint: str,
        *,
        message: str = "",
        idempotency_key: str | None = None,
        expires_in_s: float | None = None,
        bounded: bool = True,
        batch: BulkParams | None = None,
    ) -> tuple[str, bool]:
        """Create a job and send its message, both or neither: its id, and whether it is new.

        With an `idempotency_key` that was used before for the same request, the id is that of
        the earlier job. Raises `IdempotencyConflict` where that was another request, and
        `QueueFull` (never, when not `bounded`), and `BrokerFull`. A bulk job joins its `batch`.
        """
        if expires_in_s is not None and not 0 <= expires_in_s < float("inf"):
            raise InvalidParams(f"expires_in_s is {expires_in_s}: give seconds, 0 or more")
        key = names.job_key(self._prefix, job_id)
        guard = key
        if idempotency_key is not None:
            guard = names.idempotency_key(self._prefix, idempotency_key)
        if bounded:
            self._memory.check()
        limit = self._settings.max_queue_length
        reply = self._call(
            "submit", job_id, task, task.queue, params_json, fingerprint,
            "" if expires_in_s is None else expires_in_s, limit if bounded else "", message,
            *((batch.batch, batch.number, batch.items, batch.most) if batch else ("", 0, 0, 0)),
            guard=guard,
        )  # fmt: skip
        if reply[0] == "full":
            raise _queue_full(task.queue, limit, *reply[1:])
        if reply[0] == "conflict":
            raise IdempotencyConflict(
                f"the idempotency key {idempotency_key!r} belongs to job {reply[1]}, "
                "which was submitted with other params: use another key"
            )
        return str(reply[1]), reply[0] == "created"

    def cancel(self, job_id: str) -> JobState:
        """Cancel a job that has not ended; returns the state it is in now."""
        if not names.is_job_id(job_id):
            raise _not_found(job_id)
        return JobState(self._known(job_id, self._call("cancel", job_id, self._retention))[0])

    # -- running ------------------------------------------------------------------------

    def start(self, job_id: str, worker: str) -> Attempt | NotStarted:
        """Begin an attempt, unless the job has ended, is run by a live one, or has none left.

        An attempt is alive for `lease_s`, and as long as `renew` says so.
        """
        reply = self._call(
            "start", job_id, worker, self._settings.max_attempts, self._settings.lease_s,
            self._retention,
        )  # fmt: skip
        if reply[0] != "run":
            return NotStarted(str(reply[0]))
        _, number, params, created_at, started_at, counted, excused, alone = reply
        return Attempt(
            job_id, number, json.loads(params), float(created_at), float(started_at),
            counted, excused, counted >= self._settings.max_attempts, bool(alone),
        )  # fmt: skip

    def succeed(self, attempt: Attempt, result: JobResult) -> bool:
        """Record the result; False when the attempt is no longer the one that may."""
        text = result.model_dump_json()
        done = result.completed
        return self._finish(attempt, JobState.SUCCEEDED, "result", text, "", completed=done)

    def fail(self, attempt: Attempt, failure: Failure, *, dead: bool = False) -> bool:
        """End the job without a result; False when the attempt is no longer the one that may.

        A `dead` one is put on the list of dead letters.
        """
        text = failure.model_dump_json()
        return self._finish(attempt, JobState.FAILED, "failure", text, failure.code, dead)

    def refuse(self, job_id: str, failure: Failure) -> bool:
        """End a job that waits and cannot be run, as a dead letter; False if it does not wait."""
        attempt = self.start(job_id, "nobody")
        return isinstance(attempt, Attempt) and self.fail(attempt, failure, dead=True)

    def release(
        self, attempt: Attempt, failure: Failure, *, counts: bool = True, alone: bool = False
    ) -> bool:
        """Put a running job back in its place in the queue, for another attempt."""
        reply = self._call(
            "release", attempt.job, attempt.number, int(counts),
            failure.model_dump_json(), failure.code, int(alone),
        )  # fmt: skip
        return bool(reply[0] == "ok")

    def disown(self, worker: str, code: str = "worker_stopped") -> list[str]:
        """Put back all that a worker ran which has ended; its attempts do not count."""
        found: list[str] = []
        for task in Task:
            key = self._queue_key(task.queue, "running")
            with self._errors():
                found += self._scripts["disown"](
                    keys=[key], args=[self._prefix, worker, task.queue, code]
                )
        return found

    def renew(self, worker: str, job_ids: Collection[str]) -> None:
        """Keep the attempts of `worker` at these jobs alive for another `lease_s`."""
        self._lease(worker, job_ids, self._settings.lease_s)

    def abandon(
        self, worker: str, job_ids: Collection[str], failure: Failure | None = None
    ) -> None:
        """Say that the attempts of `worker` at these jobs have died, before their leases end."""
        self._lease(worker, job_ids, "", failure.model_dump_json() if failure else "")

    def _lease(
        self, worker: str, job_ids: Collection[str], lease_s: float | str, failure: str = ""
    ) -> None:
        if job_ids:
            key = names.leases_key(self._prefix)
            with self._errors():
                self._scripts["renew"](
                    keys=[key], args=[self._prefix, worker, lease_s, failure, *job_ids]
                )

    def holds(self, attempt: Attempt) -> bool:
        """Whether the attempt is still the one that may end its job."""
        key = names.job_key(self._prefix, attempt.job)
        with self._errors():
            state, number = self._redis.hmget(key, "state", "attempt")
        return bool(state == JobState.RUNNING and number == str(attempt.number))

    def is_leased(self, job_id: str) -> bool:
        """Whether an attempt at the job is alive."""
        with self._errors():
            until = self._redis.zscore(names.leases_key(self._prefix), job_id)
        return until is not None and until > self.now()

    def requeue(self, job: Job, message: str) -> bool:
        """Send a message for a job that has none, unless something has happened to it since."""
        sent_at = "" if job.sent_at is None else f"{job.sent_at:.6f}"
        reply = self._call("requeue", job.id, job.attempt, sent_at, job.queue, message)
        return bool(reply[0] == "ok")

    def forget(self, job_id: str, task: Task) -> None:
        """Take a job off its queue's lists whose record somebody has deleted."""
        with self._errors():
            for part in ("queued", "running"):
                self._redis.zrem(self._queue_key(task.queue, part), job_id)
            self._redis.zrem(names.leases_key(self._prefix), job_id)

    def _finish(
        self, attempt: Attempt, state: JobState, field: str, text: str, code: str,
        dead: bool = False, completed: int = 0,
    ) -> bool:  # fmt: skip
        reply = self._call(
            "finish", attempt.job, attempt.number, state, field, text, code, self._retention,
            int(dead), completed,
        )  # fmt: skip
        return bool(reply[0] == "ok")

    # -- looking ------------------------------------------------------------------------

    def get(self, job_id: str) -> Job:
        """The record of a job. Raises `JobNotFound`."""
        if not names.is_job_id(job_id):
            raise _not_found(job_id)
        with self._errors():
            fields = self._redis.hgetall(names.job_key(self._prefix, job_id))
        if not fields:
            raise _not_found(job_id)
        job = _decode(job_id, fields)
        if self._is_overdue(job) and self._call("expire", job_id, self._retention)[0] == "expired":
            return self.get(job_id)
        return job

    def inputs(self) -> Iterator[tuple[Task, str]]:
        """Keys of all blobs that jobs with a record have as their input; walks all records."""
        pattern = names.job_key(self._prefix, "*")
        with self._errors():
            for key in self._redis.scan_iter(pattern, count=SCAN_COUNT, _type="HASH"):
                task, params = self._redis.hmget(key, "task", "params")
                if task in INPUT_FIELDS and params:
                    blob = json.loads(params).get(INPUT_FIELDS[task])
                    if isinstance(blob, dict) and "key" in blob:
                        yield Task(task), blob["key"]

    def now(self) -> float:
        """Redis's clock, in seconds since the epoch."""
        with self._errors():
            seconds, micros = self._redis.time()
        return float(seconds + micros / 1e6)

    def ended(self, job_ids: Sequence[str]) -> list[str]:
        """Those of the jobs that have ended, also by their time being up. Raises `JobNotFound`."""
        found: list[str] = []
        for first in range(0, len(job_ids), SCAN_COUNT):
            some = job_ids[first : first + SCAN_COUNT]
            with self._errors():
                pipe = self._redis.pipeline(transaction=False)
                pipe.time()
                for job_id in some:
                    key = names.job_key(self._prefix, names.check_job_id(job_id))
                    pipe.hmget(key, "state", "expires_at")
                (seconds, _), *replies = pipe.execute()
            for job_id, (state, expires_at) in zip(some, replies, strict=True):
                if state is None:
                    raise _not_found(job_id)
                overdue = expires_at is not None and seconds >= float(expires_at)
                if JobState(state).is_terminal or (overdue and self.get(job_id).state.is_terminal):
                    found.append(job_id)
        return found

    def history(self, job_id: str) -> list[JobEvent]:
        """The job's transitions, the latest hundred of them; empty for an unknown job."""
        with self._errors():
            pipe = self._redis.pipeline(transaction=True)
            pipe.hget(names.job_key(self._prefix, job_id), "created_at")
            pipe.lrange(names.events_key(self._prefix, job_id), 0, -1)
            created_at, entries = pipe.execute()
        if created_at is None:
            return []
        first = JobEvent(state=JobState.QUEUED, attempt=0, at=float(created_at))
        return [first, *(_event(entry) for entry in entries)][-MOST_HISTORY:]

    def status(self, job_id: str) -> JobStatus:
        """State, and for a queued job its place in the queue (0 is next) and likely wait."""
        job = self.get(job_id)
        known = JobStatus(id=job.id, state=job.state, attempt=job.attempt, failure=job.failure)
        if job.state is not JobState.QUEUED:
            return known
        with self._errors():
            rank = self._redis.zrank(self._queue_key(job.queue, "queued"), job_id)
        if rank is None:  # it left the queue between the two calls
            return known
        queue = self.queue(job.queue)
        rate = max(queue.running, 1) / queue.mean_run_s if queue.mean_run_s else None
        wait = round((rank + 1) / rate, 3) if rate else None
        return known.model_copy(update={"position": rank, "estimated_wait_s": wait})

    def queue(self, queue: str) -> QueueStatus:
        """Depth, running jobs, age of the oldest waiting one, and counts of ended jobs."""
        with self._errors():
            pipe = self._redis.pipeline(transaction=True)
            pipe.zcard(self._queue_key(queue, "queued"))
            pipe.zcard(self._queue_key(queue, "running"))
            pipe.zrange(self._queue_key(queue, "queued"), 0, 0, withscores=True)
            pipe.hgetall(self._queue_key(queue, "stats"))
            pipe.time()
            depth, running, oldest, stats, (seconds, micros) = pipe.execute()
        now = seconds + micros / 1e6
        mean, of_items = (stats.pop(name, None) for name in ("mean_run_s", "mean_item_s"))
        return QueueStatus(
            queue=queue,
            depth=depth,
            running=running,
            oldest_wait_s=max(0.0, round(now - oldest[0][1], 3)) if oldest else 0.0,
            mean_run_s=float(mean) if mean else None,
            mean_item_s=float(of_items) if of_items else None,
            finished={name.partition(":")[2]: int(count) for name, count in stats.items()},
        )

    def _is_overdue(self, job: Job) -> bool:
        if job.state is not JobState.QUEUED or job.expires_at is None:
            return False
        return self.now() >= job.expires_at

    # -- plumbing -----------------------------------------------------------------------

    @property
    def _retention(self) -> int:
        return self._settings.retention_s

    def _queue_key(self, queue: str, part: str) -> str:
        return names.queue_key(self._prefix, queue, part)

    def _call(self, script: str, job_id: str, *argv: Any, guard: str | None = None) -> list[Any]:
        names.check_job_id(job_id)
        keys = [names.job_key(self._prefix, job_id), *([guard] if guard else [])]
        with self._errors():
            return list(self._scripts[script](keys=keys, args=[self._prefix, job_id, *argv]))

    def _known(self, job_id: str, reply: list[Any]) -> list[Any]:
        if reply[0] == "unknown":
            raise _not_found(job_id)
        return reply

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with broker_errors(self._settings):
            yield


def _queue_full(queue: str, limit: int, depth: int, running: int, mean_run_s: str) -> QueueFull:
    """With the time in which a twentieth of the queue will have been run, as it runs now."""
    rate = running / float(mean_run_s) if mean_run_s else 0.0
    room = depth - limit + max(1, limit // 20)
    retry_after_s = min(3_600.0, max(1.0, round(room / rate, 1))) if rate else NOBODY_WORKS_S
    return QueueFull(
        f"the queue {queue} holds {depth} jobs, {limit} are allowed: submit again in "
        f"{retry_after_s:g} s, add workers, or raise CROSSMODAL_MAX_QUEUE_LENGTH",
        retry_after_s,
    )


def _not_found(job_id: str) -> JobNotFound:
    return JobNotFound(
        f"there is no job {job_id[:140]!r}: it was never submitted to this Redis, "
        "or its record has outlived CROSSMODAL_RETENTION_S"
    )


def _event(entry: str) -> JobEvent:
    state, attempt, code, at = entry.split(" ")
    return JobEvent(state=JobState(state), attempt=int(attempt), code=code, at=float(at))


def _decode(job_id: str, fields: dict[str, str]) -> Job:
    for name in ("params", "result", "failure"):
        if name in fields:
            fields[name] = json.loads(fields[name])
    return Job.model_validate({"id": job_id, **fields})
