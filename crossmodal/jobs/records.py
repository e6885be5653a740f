"""The records of jobs as they are: states, histories, places in the queue, figures of queues.

What changes them is in `ledger.py`; but for expiring, which happens when somebody looks.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis import Redis

from crossmodal.errors import JobNotFound, quoted
from crossmodal.jobs import names
from crossmodal.jobs.connection import broker_errors, connect
from crossmodal.jobs.names import Task
from crossmodal.jobs.origin import Webhook
from crossmodal.jobs.record import Job, JobEvent, JobState, JobStatus, QueueStatus
from crossmodal.jobs.scripts import script
from crossmodal.settings import Settings

SCAN_COUNT = 1_000
MOST_HISTORY = 100
INPUT_FIELDS = {  # of params, where they name a blob
    Task.IMG2TXT: "image", Task.TXT2IMG_BULK: "input", Task.IMG2TXT_BULK: "input",
}  # fmt: skip


class JobRecords:
    """Looks at job records. Every method may raise `BrokerUnavailable`."""

    scripts: tuple[str, ...] = ("expire",)

    def __init__(self, settings: Settings, redis: Redis | None = None) -> None:
        self._settings = settings
        self._prefix = settings.key_prefix
        # redis-py types every reply as perhaps awaitable; ours never are.
        self._redis: Any = redis or connect(settings)
        self._scripts = {name: self._redis.register_script(script(name)) for name in self.scripts}

    def close(self) -> None:
        self._redis.close()

    def get(self, job_id: str) -> Job:
        """The record of a job. Raises `JobNotFound`."""
        if not names.is_job_id(job_id):
            raise not_found(job_id)
        with self._errors():
            fields = self._redis.hgetall(names.job_key(self._prefix, job_id))
        if not fields:
            raise not_found(job_id)
        job = _decode(job_id, fields)
        if self._is_overdue(job) and self._call("expire", job_id, self._retention)[0] == "expired":
            return self.get(job_id)
        return job

    def webhook(self, job_id: str) -> Webhook | None:
        """What a job's submitter asked to be told, and where."""
        with self._errors():
            text = self._redis.hget(names.job_key(self._prefix, job_id), "webhook")
        return Webhook.model_validate_json(text) if text else None

    def is_batch(self, batch_id: str) -> bool:
        """Whether a batch of this id came over HTTP, and is remembered."""
        with self._errors():
            return bool(self._redis.exists(names.http_batch_key(self._prefix, batch_id)))

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
                    raise not_found(job_id)
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
        return _history(float(created_at), entries)

    def follow(self, job_id: str) -> tuple[Job, list[JobEvent]]:
        """A job's record and its transitions, as they were at one moment. Raises `JobNotFound`."""
        key = names.job_key(self._prefix, names.check_job_id(job_id))
        with self._errors():
            pipe = self._redis.pipeline(transaction=True)
            pipe.hgetall(key)
            pipe.lrange(names.events_key(self._prefix, job_id), 0, -1)
            fields, entries = pipe.execute()
        if not fields:
            raise not_found(job_id)
        job = _decode(job_id, fields)
        if self._is_overdue(job) and self._call("expire", job_id, self._retention)[0] == "expired":
            return self.follow(job_id)
        return job, _history(job.created_at, entries)

    def status(self, job_id: str) -> JobStatus:
        """State, and for a queued job its place in the queue (0 is next) and likely wait."""
        job = self.get(job_id)
        known = JobStatus(id=job.id, state=job.state, attempt=job.attempt, failure=job.failure)
        if job.state is not JobState.QUEUED:
            return known
        position, wait_s = self.place(job)
        return known.model_copy(update={"position": position, "estimated_wait_s": wait_s})

    def place(self, job: Job) -> tuple[int | None, float | None]:
        """How many jobs are before a queued one, and its likely wait in seconds."""
        if job.state is not JobState.QUEUED:
            return None, None
        with self._errors():
            rank = self._redis.zrank(self._queue_key(job.queue, "queued"), job.id)
        if rank is None:  # it left the queue between the two calls
            return None, None
        return rank, self.queue(job.queue).wait_s(rank)

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
        means = {name: float(mean) for name, mean in stats.items() if name.startswith("mean_")}
        return QueueStatus(
            queue=queue,
            depth=depth,
            running=running,
            oldest_wait_s=max(0.0, round(now - oldest[0][1], 3)) if oldest else 0.0,
            mean_run_s=means.get("mean_run_s"),
            mean_item_s=means.get("mean_item_s"),
            mean_gap_s=means.get("mean_gap_s"),
            finished=_counts(stats, "finished:"),
            submitted=int(stats.get("submitted", 0)),
            redelivered=int(stats.get("redelivered", 0)),
            failures=_counts(stats, "failed:"),
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
            raise not_found(job_id)
        return reply

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with broker_errors(self._settings):
            yield


def _counts(stats: dict[str, str], kind: str) -> dict[str, int]:
    found = {name: count for name, count in stats.items() if name.startswith(kind)}
    return {name.removeprefix(kind): int(count) for name, count in found.items()}


def not_found(job_id: str) -> JobNotFound:
    """The error for an id that no record has."""
    return JobNotFound(
        f"there is no job {quoted(job_id[:140])}: it was never submitted to this Redis, "
        "or its record has outlived CROSSMODAL_RETENTION_S"
    )


def _history(created_at: float, entries: list[str]) -> list[JobEvent]:
    first = JobEvent(state=JobState.QUEUED, attempt=0, at=created_at)
    return [first, *(_event(entry) for entry in entries)][-MOST_HISTORY:]


def _event(entry: str) -> JobEvent:
    state, attempt, code, at = entry.split(" ")
    return JobEvent(state=JobState(state), attempt=int(attempt), code=code, at=float(at))


def _decode(job_id: str, fields: dict[str, str]) -> Job:
    for name in ("params", "result", "failure"):
        if name in fields:
            fields[name] = json.loads(fields[name])
    return Job.model_validate({"id": job_id, **fields})
