"""The jobs of an owner, the latest first, page by page."""

from typing import NamedTuple

from pydantic import ValidationError

from crossmodal.errors import InvalidParams, JobNotFound
from crossmodal.jobs.calls import Steps, call, redis
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import ended_jobs_key, job_key, jobs_key
from crossmodal.jobs.record import Job, JobState
from crossmodal.kinds.task import Task
from crossmodal.settings import Settings

AT_ONCE = 50  # of which little is read: an event loop has others to serve
MAX_READ = 200  # records a page; where few match, a page may have fewer than asked for


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
        self,
        owner: str,
        *,
        state: JobState | None = None,
        task: Task | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Steps[Page]:
        """Jobs after a cursor. Raises `InvalidParams` for what is none."""
        entries = yield from self._entries(owner, cursor)
        found: list[Job] = []
        for job_id, at in (yield from self._likely(entries, state, task)):
            job = yield from self._read(job_id, owner)
            if job and state in (None, job.state) and task in (None, job.task):
                found.append(job)
                if len(found) == limit:
                    return Page(found, _cursor(job_id, at))
        return Page(found, _cursor(*entries[-1]) if len(entries) == MAX_READ else None)

    @call
    def _likely(
        self, entries: list[tuple[str, float]], state: JobState | None, task: Task | None
    ) -> Steps[list[tuple[str, float]]]:
        """Those that may be asked for, by what little of their records is read at once."""
        if state is None and task is None:
            return entries
        found: list[tuple[str, float]] = []
        for some in (entries[i : i + AT_ONCE] for i in range(0, len(entries), AT_ONCE)):
            keys = [job_key(self._prefix, job_id) for job_id, _ in some]
            replies = yield [redis.hmget(key, "state", "task", "expires_at") for key in keys]
            each = zip(some, replies, strict=True)
            found += [entry for entry, fields in each if _may_be(state, task, *fields)]
        return found

    @call
    def _entries(self, owner: str, cursor: str | None) -> Steps[list[tuple[str, float]]]:
        """Some ids and times older than the cursor's; of one time, those with a smaller id."""
        key = jobs_key(self._prefix, owner)
        if cursor is None:
            return list((yield redis.zrevrange(key, 0, MAX_READ - 1, withscores=True)))
        at, job_id = _parse(cursor)
        found = yield redis.zrevrangebyscore(key, at, "-inf", 0, MAX_READ + 1, withscores=True)
        after = [(i, when) for i, when in found if (when, i) < (at, job_id)]
        return after[:MAX_READ]

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


def _may_be(
    state: JobState | None,
    task: Task | None,
    is_state: str | None,
    is_task: str | None,
    expires_at: str | None,
) -> bool:
    """Whether a job may be asked for. One that waits may have expired; one without a record is to
    be found missing."""
    if is_state is None:
        return True
    may_expire = is_state == JobState.QUEUED and expires_at is not None
    return task in (None, is_task) and (state in (None, is_state) or may_expire)


def _cursor(job_id: str, at: float) -> str:
    return f"{at:.6f}:{job_id}"


def _parse(cursor: str) -> tuple[float, str]:
    at, _, job_id = cursor.partition(":")
    try:
        found = float(at)
        if not job_id or not 0 <= found < 1e12:
            raise ValueError
    except ValueError as e:
        raise InvalidParams(f"{cursor[:80]!r} is no cursor: give the next_cursor of a page") from e
    return found, job_id
