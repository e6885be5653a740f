"""The jobs of an owner, the latest first, page by page."""

from typing import Any, NamedTuple

from pydantic import ValidationError
from redis import Redis

from crossmodal.errors import InvalidParams, JobNotFound
from crossmodal.jobs.connection import broker_errors
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import Task, ended_jobs_key, jobs_key
from crossmodal.jobs.record import Job, JobState
from crossmodal.settings import Settings

MOST_LOOKED_AT = 1_000  # records a page; where few match, a page may have fewer than asked for


class Page(NamedTuple):
    """Some jobs, and where the next page begins; None at the end."""

    jobs: list[Job]
    next_cursor: str | None


class Listing:
    """Reads owners' lists of jobs; messages of batches are not among them."""

    def __init__(self, settings: Settings, ledger: JobLedger, redis: Redis) -> None:
        self._settings = settings
        self._ledger = ledger
        self._redis: Any = redis

    def page(
        self, owner: str, *, state: JobState | None = None, task: Task | None = None,
        cursor: str | None = None, limit: int = 50,
    ) -> Page:  # fmt: skip
        """Jobs after a cursor. Raises `InvalidParams` for what is none."""
        found: list[Job] = []
        looked_at = 0
        last = cursor
        while len(found) < limit:
            entries = self._entries(owner, last, min(limit, MOST_LOOKED_AT))
            if not entries:
                return Page(found, None)
            for job_id, at in entries:
                last = f"{at:.6f}:{job_id}"
                job = self._read(job_id, owner)
                if job and state in (None, job.state) and task in (None, job.task):
                    found.append(job)
                    if len(found) == limit:
                        break
            looked_at += len(entries)
            if looked_at >= MOST_LOOKED_AT:
                break
        return Page(found, last)

    def _entries(self, owner: str, cursor: str | None, most: int) -> list[tuple[str, float]]:
        """Ids and times older than the cursor's; of one time, those with a smaller id."""
        key = jobs_key(self._settings.key_prefix, owner)
        if cursor is None:
            with broker_errors(self._settings):
                return list(self._redis.zrevrange(key, 0, most - 1, withscores=True))
        at, job_id = _parse(cursor)
        with broker_errors(self._settings):
            found = self._redis.zrevrangebyscore(key, at, "-inf", 0, most + 1, withscores=True)
        after = [(i, when) for i, when in found if (when, i) < (at, job_id)]
        return after[:most]

    def _read(self, job_id: str, owner: str) -> Job | None:
        try:
            return self._ledger.get(job_id)
        except ValidationError:  # of another version: nothing that could be shown
            return None
        except JobNotFound:  # its retention is over
            with broker_errors(self._settings):
                for key in (jobs_key, ended_jobs_key):
                    self._redis.zrem(key(self._settings.key_prefix, owner), job_id)
            return None


def _parse(cursor: str) -> tuple[float, str]:
    at, _, job_id = cursor.partition(":")
    try:
        found = float(at)
        if not job_id or not 0 <= found < 1e12:
            raise ValueError
    except ValueError as e:
        raise InvalidParams(f"{cursor[:80]!r} is no cursor: give the next_cursor of a page") from e
    return found, job_id
