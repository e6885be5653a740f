"""Pages of an owner's jobs, latest first."""

from typing import NamedTuple

from pydantic import ValidationError

from crossmodal.errors import InvalidParams, JobNotFound
from crossmodal.jobs.calls import Steps, call, redis
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import ended_jobs_key, job_key, jobs_key
from crossmodal.jobs.record import Job, JobState
from crossmodal.kinds.task import Task
from crossmodal.settings import Settings

AT_ONCE = 50  # records per pipeline, so that an event loop can serve other clients in between
MAX_READ = 200  # records read per page; if few match, a page may be shorter than `limit`


class Page(NamedTuple):
    """A page of jobs, and the cursor of the next page; None at the end."""

    jobs: list[Job]
    next_cursor: str | None


class Listing:
    """The reader of owners' lists of jobs; these exclude bulk messages."""

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
        """Return the jobs after a cursor. Raises `InvalidParams` for an invalid cursor."""
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
        """Return the entries that may match, judged by a few fields of their records."""
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
        """Return ids and times older than the cursor; at equal times, those with a smaller id."""
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
        except ValidationError:  # written by another version
            return None
        except JobNotFound:  # its record has expired
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
    """Return whether a job may match.

    A queued job may have expired; a job without a record matches, so that `_read` removes it.
    """
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
        raise InvalidParams(
            f"{cursor[:80]!r} is not a cursor: use the next_cursor of a page"
        ) from e
    return found, job_id
