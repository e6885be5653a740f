"""The job ledger: the one source of truth for what became of a job.

Records live in Redis. Every transition is one Lua script that compares before it sets, so
that of two processes that would end a job exactly one does, and the other is told.
"""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from redis import Redis

from crossmodal.errors import IdempotencyConflict, InvalidParams, JobNotFound, QueueFull
from crossmodal.jobs import names
from crossmodal.jobs.connection import broker_errors, connect
from crossmodal.jobs.names import Task
from crossmodal.jobs.record import Failure, Job, JobResult, JobState, JobStatus, QueueStatus
from crossmodal.settings import Settings


@dataclass(frozen=True)
class Attempt:
    """A started attempt; `number` is the fence that its owner must show to end the job."""

    job: str
    number: int
    params: dict[str, Any]
    created_at: float
    started_at: float
    is_last: bool

    @property
    def queued_s(self) -> float:
        return self.started_at - self.created_at


@dataclass(frozen=True)
class NotStarted:
    """Why there is nothing to run: a terminal state, `busy`, `exhausted` or `unknown`."""

    reason: str


@cache
def _script(name: str) -> str:
    folder = resources.files("crossmodal.jobs")
    return "".join(folder.joinpath(f"{n}.lua").read_text() for n in ("common", name))


class JobLedger:
    """Job records and their transitions. Every method may raise `BrokerUnavailable`."""

    def __init__(self, settings: Settings, redis: Redis | None = None) -> None:
        self._settings = settings
        self._prefix = settings.key_prefix
        # redis-py types every reply as perhaps awaitable; ours never are.
        self._redis: Any = redis or connect(settings)
        self._scripts = {
            name: self._redis.register_script(_script(name))
            for name in (
                "submit",
                "start",
                "finish",
                "release",
                "cancel",
                "expire",
                "renew",
                "withdraw",
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
        idempotency_key: str | None = None,
        expires_in_s: float | None = None,
        bounded: bool = True,
    ) -> tuple[str, bool]:
        """Create a job: its id, and whether it is new.

        With an `idempotency_key` that was used before for the same request, the id is that of
        the earlier job. Raises `IdempotencyConflict` where that was another request, and
        `QueueFull` (never, when not `bounded`).
        """
        if expires_in_s is not None and not 0 <= expires_in_s < float("inf"):
            raise InvalidParams(f"expires_in_s is {expires_in_s}: give seconds, 0 or more")
        key = names.job_key(self._prefix, job_id)
        guard = key
        if idempotency_key is not None:
            guard = names.idempotency_key(self._prefix, idempotency_key)
        limit = self._settings.max_queue_length
        reply = self._call(
            "submit", job_id, task, task.queue, params_json, fingerprint,
            "" if expires_in_s is None else expires_in_s, limit if bounded else "", guard=guard,
        )  # fmt: skip
        if reply[0] == "full":
            raise QueueFull(
                f"the queue {task.queue} holds {reply[1]} jobs, {limit} are allowed: "
                "submit again later, or raise CROSSMODAL_MAX_QUEUE_LENGTH"
            )
        if reply[0] == "conflict":
            raise IdempotencyConflict(
                f"the idempotency key {idempotency_key!r} belongs to job {reply[1]}, "
                "which was submitted with other params: use another key"
            )
        return str(reply[1]), reply[0] == "created"

    def withdraw(self, job_id: str) -> bool:
        """Forget a job whose message could not be sent, if no worker has started it."""
        return bool(self._call("withdraw", job_id)[0] == "ok")

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
        _, number, params, created_at, started_at, is_last = reply
        return Attempt(
            job_id, number, json.loads(params), float(created_at), float(started_at), bool(is_last)
        )

    def succeed(self, attempt: Attempt, result: JobResult) -> bool:
        """Record the result; False when the attempt is no longer the one that may."""
        return self._finish(attempt, JobState.SUCCEEDED, "result", result.model_dump_json(), "")

    def fail(self, attempt: Attempt, failure: Failure) -> bool:
        """End the job without a result; False when the attempt is no longer the one that may."""
        text = failure.model_dump_json()
        return self._finish(attempt, JobState.FAILED, "failure", text, failure.code)

    def release(self, attempt: Attempt, failure: Failure, *, counts: bool = True) -> bool:
        """Put a running job back in its place in the queue, for another attempt."""
        reply = self._call(
            "release", attempt.job, attempt.number, int(counts),
            failure.model_dump_json(), failure.code,
        )  # fmt: skip
        return bool(reply[0] == "ok")

    def renew(self, worker: str, job_ids: Collection[str]) -> None:
        """Keep the attempts of `worker` at these jobs alive for another `lease_s`."""
        self._lease(worker, job_ids, self._settings.lease_s)

    def abandon(self, worker: str, job_ids: Collection[str]) -> None:
        """Say that the attempts of `worker` at these jobs have died, before their leases end."""
        self._lease(worker, job_ids, "")

    def _lease(self, worker: str, job_ids: Collection[str], lease_s: float | str) -> None:
        if job_ids:
            key = names.leases_key(self._prefix)
            with self._errors():
                self._scripts["renew"](keys=[key], args=[self._prefix, worker, lease_s, *job_ids])

    def holds(self, attempt: Attempt) -> bool:
        """Whether the attempt is still the one that may end its job."""
        key = names.job_key(self._prefix, attempt.job)
        with self._errors():
            state, number = self._redis.hmget(key, "state", "attempt")
        return bool(state == JobState.RUNNING and number == str(attempt.number))

    def _finish(self, attempt: Attempt, state: JobState, field: str, text: str, code: str) -> bool:
        reply = self._call(
            "finish", attempt.job, attempt.number, state, field, text, code, self._retention
        )
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
        mean = stats.pop("mean_run_s", None)
        return QueueStatus(
            queue=queue,
            depth=depth,
            running=running,
            oldest_wait_s=max(0.0, round(now - oldest[0][1], 3)) if oldest else 0.0,
            mean_run_s=float(mean) if mean else None,
            finished={name.partition(":")[2]: int(count) for name, count in stats.items()},
        )

    def _is_overdue(self, job: Job) -> bool:
        if job.state is not JobState.QUEUED or job.expires_at is None:
            return False
        with self._errors():
            seconds, micros = self._redis.time()
        return bool(seconds + micros / 1e6 >= job.expires_at)

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


def _not_found(job_id: str) -> JobNotFound:
    return JobNotFound(
        f"there is no job {job_id[:140]!r}: it was never submitted to this Redis, "
        "or its record has outlived CROSSMODAL_RETENTION_S"
    )


def _decode(job_id: str, fields: dict[str, str]) -> Job:
    for name in ("params", "result", "failure"):
        if name in fields:
            fields[name] = json.loads(fields[name])
    return Job.model_validate({"id": job_id, **fields})
