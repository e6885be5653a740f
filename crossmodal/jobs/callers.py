"""State of API callers between requests, for interfaces that are designed for a single user.

Each caller has its own: the model for requests that name none, and the jobs that it waits for.
"""

import time

from crossmodal.errors import JobNotFound
from crossmodal.jobs.calls import Atomic, Steps, call, redis
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import api_key_key
from crossmodal.jobs.record import Job
from crossmodal.settings import Settings

_MODEL = "model"


class Callers:
    """The chosen model and attended jobs per API key id; every method returns a call."""

    def __init__(self, settings: Settings, ledger: JobLedger) -> None:
        self._prefix = settings.key_prefix
        self._retention_s = settings.retention_s
        self._ledger = ledger

    @call
    def model(self, owner: str) -> Steps[str | None]:
        """Return the name of the model that a caller has chosen, if any."""
        name: str | None = yield redis.hget(api_key_key(self._prefix, owner), _MODEL)
        return name

    @call
    def choose(self, owner: str, model: str | None) -> Steps[None]:
        """Choose the model for a caller's later requests; None is the default one."""
        key = api_key_key(self._prefix, owner)
        yield redis.hdel(key, _MODEL) if model is None else redis.hset(key, _MODEL, model)

    @call
    def attend(self, owner: str, job_id: str) -> Steps[None]:
        """Record that a caller holds a connection open until a job ends."""
        key, now = self._attended(owner), time.time()
        yield Atomic(
            [
                redis.zadd(key, {job_id: now}),
                redis.zremrangebyscore(key, "-inf", now - self._retention_s),
                redis.expire(key, self._retention_s),
            ]
        )

    @call
    def leave(self, owner: str, job_id: str) -> Steps[None]:
        """Record that the connection has closed."""
        yield redis.zrem(self._attended(owner), job_id)

    @call
    def attended(self, owner: str) -> Steps[list[Job]]:
        """Return a caller's attended jobs that have not ended, oldest first."""
        found: list[Job] = []
        for job_id in (yield redis.zrange(self._attended(owner), 0, -1)):
            try:
                job = yield from self._ledger.get(job_id)
            except JobNotFound:
                job = None
            if job is not None and not job.state.is_terminal:
                found.append(job)
            else:  # the process that waited for it was killed
                yield redis.zrem(self._attended(owner), job_id)
        return found

    def _attended(self, owner: str) -> str:
        return f"{api_key_key(self._prefix, owner)}:attended"
