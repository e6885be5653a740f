"""What is kept of callers between their requests, where an interface has but one user in mind.

It is each caller's own: which model draws for whom names none, and which jobs are waited for.
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
    """Chosen models and attended jobs, by the id of the API key; every method makes a call."""

    def __init__(self, settings: Settings, ledger: JobLedger) -> None:
        self._prefix = settings.key_prefix
        self._retention_s = settings.retention_s
        self._ledger = ledger

    @call
    def model(self, owner: str) -> Steps[str | None]:
        """The name of the model that a caller has chosen, if any."""
        name: str | None = yield redis.hget(api_key_key(self._prefix, owner), _MODEL)
        return name

    @call
    def choose(self, owner: str, model: str | None) -> Steps[None]:
        """Have a model draw for a caller from now on; None is the default one."""
        key = api_key_key(self._prefix, owner)
        yield redis.hdel(key, _MODEL) if model is None else redis.hset(key, _MODEL, model)

    @call
    def attend(self, owner: str, job_id: str) -> Steps[None]:
        """Note that a caller holds a connection open until a job has ended."""
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
        """Note that the connection has ended."""
        yield redis.zrem(self._attended(owner), job_id)

    @call
    def attended(self, owner: str) -> Steps[list[Job]]:
        """Those of a caller's jobs that are waited for and have not ended, the oldest first."""
        found: list[Job] = []
        for job_id in (yield redis.zrange(self._attended(owner), 0, -1)):
            try:
                job = yield from self._ledger.get(job_id)
            except JobNotFound:
                job = None
            if job is not None and not job.state.is_terminal:
                found.append(job)
            else:  # whoever waited for it was killed before it could say so
                yield redis.zrem(self._attended(owner), job_id)
        return found

    def _attended(self, owner: str) -> str:
        return f"{api_key_key(self._prefix, owner)}:attended"
