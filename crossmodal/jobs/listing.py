"""The jobs of an owner, the latest first, page by page."""

from typing import NamedTuple

from pydantic import ValidationError

from crossmodal.errors import InvalidParams, JobNotFound
from crossmodal.jobs.calls import Steps, call, redis
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import ended_jobs_key, jobs_key
from crossmodal.jobs.record import Job, JobState
from crossmodal.kinds.task import Task
from crossmodal.settings import Settings

MAX_READ = 1_000  # records a page; where few match, a page may have fewer than asked for


class Page(NamedTuple):
    """Some jobs, and where the next page begins; None at the end."""

    jobs: list[Job]
    next_cursor: str | None


class Listing:
    """Reads owners' lists of jobs; messages of batches are not among them."""

    def __init__(self, settings: Settings, ledger: JobLedger) -> None:
        self._prefix = settings.key_prefix
        self._ledger = ledger

    @call
    def page(
        self, owner: str, *, state: JobState | None = None, task: Task | None = None,
        cursor: str | None = None, limit: int = 50,
    ) -> Steps[Page]:  # fmt: skip
        """Jobs after a cursor. Raises `InvalidParams` for what is none."""
        found: list[Job] = []
        read = 0
        last = cursor
        while len(found) < limit:
            entries = yield from self._entries(owner, last, min(limit, MAX_READ))
            if not entries:
                return Page(found, None)
            for job_id, at in entries:
                last = f"{at:.6f}:{job_id}"
                job = yield from self._read(job_id, owner)
                if job and state in (None, job.state) and task in (None, job.task):
                    found.append(job)
                    if len(found) == limit:
                        break
            read += len(entries)
            if read >= MAX_READ:
                break
        return Page(found, last)

    @call
    def _entries(
        self, owner: str, cursor: str | None, max_count: int
    ) -> Steps[list[tuple[str, float]]]:
        """Ids and times older than the cursor's; of one time, those with a smaller id."""
        key = jobs_key(self._prefix, owner)
        if cursor is None:
            return list((yield redis.zrevrange(key, 0, max_count - 1, withscores=True)))
        at, job_id = _parse(cursor)
        found = yield redis.zrevrangebyscore(key, at, "-inf", 0, max_count + 1, withscores=True)
        after = [(i, when) for i, when in found if (when, i) < (at, job_id)]
        return after[:max_count]

    @call
    def _read(self, job_id: str, owner: str) -> Steps[Job | None]:
        try:
            return (yield from self._ledger.get(job_id))
        except ValidationError:  # of another version: nothing that could be shown
            return None
        except JobNotFound:  # its retention is over
            keys = (jobs_key, ended_jobs_key)
            yield [redis.zrem(key(self._prefix, owner), job_id) for key in keys]
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
