"""Reads job records: states, histories, places in the queue, queue statistics.

`ledger.py` changes them, except that a read here expires a job whose deadline has passed.
"""

import json
from collections.abc import Sequence
from typing import Any

from crossmodal.errors import JobNotFound, quoted
from crossmodal.jobs import names
from crossmodal.jobs.calls import Atomic, Command, Script, Steps, call, redis
from crossmodal.jobs.origin import Webhook
from crossmodal.jobs.record import Job, JobEvent, JobState, JobStatus, QueueStatus
from crossmodal.kinds.task import Task, parse_task
from crossmodal.settings import Settings

SCAN_COUNT = 1_000
MAX_HISTORY = 100


class JobRecords:
    """The reader of job records. Methods return calls that may raise `BrokerUnavailable`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._prefix = settings.key_prefix

    @call
    def get(self, job_id: str) -> Steps[Job]:
        """Return the record of a job. Raises `JobNotFound`."""
        fields = yield redis.hgetall(self._key(job_id))
        if not fields:
            raise not_found(job_id)
        job = _decode(job_id, fields)
        if (yield from self._expires(job)):
            return (yield from self.get(job_id))
        return job

    def _key(self, job_id: str) -> str:
        """Return the key of a job's record. Raises `JobNotFound` for an invalid id."""
        if not names.is_job_id(job_id):
            raise not_found(job_id)
        return names.job_key(self._prefix, job_id)

    @call
    def webhook(self, job_id: str) -> Steps[Webhook | None]:
        """Return the webhook that a job was submitted with, if any."""
        text = yield redis.hget(names.job_key(self._prefix, job_id), "webhook")
        return Webhook.model_validate_json(text) if text else None

    @call
    def is_upload(self, name: str) -> Steps[bool]:
        """Return whether an HTTP batch job or file with this id has a record."""
        keys = [names.http_batch_key(self._prefix, name), names.file_key(self._prefix, name)]
        return any((yield [redis.exists(key) for key in keys]))

    @call
    def inputs(self, cursor: int = 0) -> Steps[tuple[list[tuple[Task, str]], int]]:
        """Return a page of the keys of jobs' input blobs, each with its task.

        Also returns the cursor of the next page, 0 after the last one.
        """
        pattern = names.job_key(self._prefix, "*")
        cursor, keys = yield redis.scan(cursor, pattern, SCAN_COUNT, _type="HASH")
        replies = yield [redis.hmget(key, "task", "params") for key in keys]
        return [blob for task, params in replies for blob in _input(task, params)], cursor

    @call
    def now(self) -> Steps[float]:
        """Return the time of Redis's clock, in seconds since the epoch."""
        seconds, micros = yield redis.time()
        return float(seconds + micros / 1e6)

    @call
    def ended(self, job_ids: Sequence[str]) -> Steps[list[str]]:
        """Return those of the jobs that have ended, expired ones too. Raises `JobNotFound`."""
        found: list[str] = []
        for first in range(0, len(job_ids), SCAN_COUNT):
            some = job_ids[first : first + SCAN_COUNT]
            keys = [self._key(job_id) for job_id in some]
            (seconds, _), *replies = yield [
                redis.time(),
                *(redis.hmget(key, "state", "expires_at") for key in keys),
            ]
            for job_id, (state, expires_at) in zip(some, replies, strict=True):
                if state is None:
                    raise not_found(job_id)
                has_ended = JobState(state).is_terminal
                if not has_ended and expires_at is not None and seconds >= float(expires_at):
                    has_ended = (yield from self.get(job_id)).state.is_terminal
                if has_ended:
                    found.append(job_id)
        return found

    @call
    def history(self, job_id: str) -> Steps[list[JobEvent]]:
        """Return the job's latest hundred transitions; empty for an unknown job."""
        created_at, entries = yield Atomic(
            [
                redis.hget(names.job_key(self._prefix, job_id), "created_at"),
                redis.lrange(names.events_key(self._prefix, job_id), 0, -1),
            ]
        )
        return [] if created_at is None else _history(float(created_at), entries)

    @call
    def follow(self, job_id: str) -> Steps[tuple[Job, list[JobEvent]]]:
        """Return a consistent snapshot of a job's record and transitions. Raises `JobNotFound`."""
        fields, entries = yield Atomic(
            [
                redis.hgetall(self._key(job_id)),
                redis.lrange(names.events_key(self._prefix, job_id), 0, -1),
            ]
        )
        if not fields:
            raise not_found(job_id)
        job = _decode(job_id, fields)
        if (yield from self._expires(job)):
            return (yield from self.follow(job_id))
        return job, _history(job.created_at, entries)

    @call
    def status(self, job_id: str) -> Steps[JobStatus]:
        """Return the state and, for a queued job, its place (0 is next) and estimated wait."""
        job = yield from self.get(job_id)
        known = JobStatus(
            id=job.id,
            state=job.state,
            attempt=job.attempt,
            progress=job.progress,
            failure=job.failure,
        )
        if job.state is not JobState.QUEUED:
            return known
        position, wait_s = yield from self.place(job)
        return known.model_copy(update={"position": position, "estimated_wait_s": wait_s})

    @call
    def place(self, job: Job) -> Steps[tuple[int | None, float | None]]:
        """Return how many jobs are before a queued one, and its estimated wait in seconds."""
        if job.state is not JobState.QUEUED:
            return None, None
        rank = yield redis.zrank(self._queue_key(job.queue, "queued"), job.id)
        if rank is None:  # it has left the queue since its record was read
            return None, None
        return rank, (yield from self.queue(job.queue)).wait_s(rank)

    @call
    def queue(self, queue: str) -> Steps[QueueStatus]:
        """Return depth, running jobs, age of the oldest waiting job, and counts of ended jobs."""
        [status] = yield from self.queues([queue])
        return status

    @call
    def queues(self, queues: Sequence[str]) -> Steps[list[QueueStatus]]:
        """Return a consistent snapshot of the status of several queues."""
        commands = [command for queue in queues for command in self._figures(queue)]
        *figures, (seconds, micros) = yield Atomic([*commands, redis.time()])
        now = seconds + micros / 1e6
        each = zip(*[iter(figures)] * 5, strict=True)
        return [_status(queue, now, *own) for queue, own in zip(queues, each, strict=True)]

    def _figures(self, queue: str) -> list[Command]:
        return [
            redis.zcard(self._queue_key(queue, "queued")),
            redis.zcard(self._queue_key(queue, "running")),
            redis.zrange(self._queue_key(queue, "queued"), 0, 0, withscores=True),
            redis.hgetall(self._queue_key(queue, "stats")),
            redis.hget(names.paused_key(self._prefix), queue),
        ]

    @call
    def _expires(self, job: Job) -> Steps[bool]:
        """Expire a job whose deadline has passed; return whether it was expired."""
        if job.state is not JobState.QUEUED or job.expires_at is None:
            return False
        if (yield from self.now()) < job.expires_at:
            return False
        reply = yield self._on_job("expire", job.id, self._retention)
        return bool(reply[0] == "expired")

    # -- plumbing -----------------------------------------------------------------------

    @property
    def _retention(self) -> int:
        return self._settings.retention_s

    def _queue_key(self, queue: str, part: str) -> str:
        return names.queue_key(self._prefix, queue, part)

    def _on_job(self, script: str, job_id: str, *args: Any, guard: str | None = None) -> Script:
        """Return a script run on one job; `guard` is a second key for it, if any."""
        key = names.job_key(self._prefix, names.check_job_id(job_id))
        keys = (key,) if guard is None else (key, guard)
        return Script(script, keys, (self._prefix, job_id, *args))

    def _on_key(self, script: str, key: str, *args: Any) -> Script:
        return Script(script, (key,), (self._prefix, *args))


def _input(task: str | None, params: str | None) -> list[tuple[Task, str]]:
    """Return a job's input blob with its task, or an empty list."""
    if task is None or not params:
        return []
    known = parse_task(task)
    field = "input" if known.is_bulk else known.kind.picture
    blob = json.loads(params).get(field)
    return [(known, blob["key"])] if isinstance(blob, dict) and "key" in blob else []


def _status(
    queue: str,
    now: float,
    depth: int,
    running: int,
    oldest: list[tuple[str, float]],
    stats: dict[str, str],
    paused: str | None,
) -> QueueStatus:
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
        paused=paused is not None,
    )


def _counts(stats: dict[str, str], kind: str) -> dict[str, int]:
    found = {name: count for name, count in stats.items() if name.startswith(kind)}
    return {name.removeprefix(kind): int(count) for name, count in found.items()}


def not_found(job_id: str) -> JobNotFound:
    """Return the error for an id without a record."""
    return JobNotFound(
        f"there is no job {quoted(job_id[:140])}: it was never submitted to this Redis, "
        "or its record has outlived CROSSMODAL_RETENTION_S"
    )


def _history(created_at: float, entries: list[str]) -> list[JobEvent]:
    first = JobEvent(state=JobState.QUEUED, attempt=0, at=created_at)
    return [first, *(_event(entry) for entry in entries)][-MAX_HISTORY:]


def _event(entry: str) -> JobEvent:
    state, attempt, code, at = entry.split(" ")
    return JobEvent(state=JobState(state), attempt=int(attempt), code=code, at=float(at))


def _decode(job_id: str, fields: dict[str, str]) -> Job:
    if fields.get("state") != JobState.RUNNING:
        fields.pop("progress", None)  # it belongs to an ended attempt
    for name in ("params", "result", "failure", "progress"):
        if name in fields:
            fields[name] = json.loads(fields[name])
    return Job.model_validate({"id": job_id, **fields})
