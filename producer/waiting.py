"""Waiting for jobs to end, independent of how the waiting is done.

The same object serves blocking and asynchronous callers: it makes the step that blocks in Redis
until something happens, processes the reply, and determines when states must be checked.
Transitions are published in a few streams that many jobs share, so that waiting for ten jobs and
for a million costs the same. A periodic check finds entries trimmed before they were read.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from crossmodal.errors import ResultTimeout
from crossmodal.jobs.calls import Command, Step, Waiting, redis
from crossmodal.jobs.names import shard_key
from crossmodal.jobs.record import JobState

MAX_BLOCK_S = 2.0  # shorter than the socket timeout, so that a dead server is noticed
CHECK_S = 2.0  # interval of state checks, for what happens by the clock alone ...
CHECK_MANY_S = 10.0  # ... and the interval for more jobs than MANY
MANY = 100
TELL_S = 0.25  # min interval between two reports of a job's status


class Wait:
    """A wait for jobs to reach a terminal state.

    `since` is Redis's time before any of them was checked: the streams have later transitions.
    """

    def __init__(
        self,
        prefix: str,
        job_ids: Iterable[str],
        timeout_s: float | None,
        block_s: float,
        since: float,
    ) -> None:
        self._prefix = prefix
        self._since = str(int(since * 1_000) - 1)
        self._seen: dict[str, str] = {}  # stream -> id of its last known entry
        self._left: dict[str, None] = {}  # a set that keeps the order
        self._unknown: list[str] = []  # jobs whose state was never checked
        self._count = 0  # all jobs ever followed
        self._timeout_s = timeout_s
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._block_s = min(MAX_BLOCK_S, block_s)
        self._check_at = 0.0
        self._tell_at = 0.0
        self._owes_news = False  # whether a status report is due once TELL_S has passed
        for job_id in job_ids:
            self.add(job_id)

    def __bool__(self) -> bool:
        return bool(self._left)

    def add(self, job_id: str, *, is_new: bool = False) -> None:
        """Follow one more job; `is_new` means it was submitted after `since`."""
        self._left[job_id] = None
        self._count += 1
        self._seen.setdefault(shard_key(self._prefix, job_id), self._since)
        if not is_new:
            self._unknown.append(job_id)

    def to_check(self) -> Sequence[str]:
        """Return the jobs whose state must be checked before the next step."""
        now = time.monotonic()
        if now < self._check_at:
            found, self._unknown = self._unknown, []
            return found
        self._check_at = now + (CHECK_MANY_S if len(self._left) > MANY else CHECK_S)
        self._unknown = []
        return list(self._left)

    def is_time_to_tell(self) -> bool:
        """Whether a status report is due; throttled, since other jobs' events wake the wait."""
        now = time.monotonic()
        self._owes_news = now < self._tell_at
        if not self._owes_news:
            self._tell_at = now + TELL_S
        return not self._owes_news

    def end(self, job_ids: Iterable[str]) -> list[str]:
        """Stop following these ended jobs. Returns those that were followed."""
        return [job_id for job_id in job_ids if self._left.pop(job_id, self) is None]

    def step(self, *, block: bool = True) -> Step:
        """Return an XREAD over the jobs' streams. Raises `ResultTimeout` after the deadline."""
        left = self._block_s
        if self._owes_news:
            left = min(left, max(0.0, self._tell_at - time.monotonic()))
        if self._deadline is not None:
            still = self._deadline - time.monotonic()
            if still <= 0:
                raise ResultTimeout(self._in_time())
            left = min(left, still)
        if block:
            return Waiting(redis.xread(self._seen, block=max(1, int(left * 1_000))))
        command: Command = redis.xread(self._seen)
        return command

    def _in_time(self) -> str:
        first, left = next(iter(self._left)), len(self._left)
        within = f" within {self._timeout_s:g} s" if self._timeout_s else " yet"
        if self._count == 1:
            return f"job {first} has not ended{within} and goes on"
        return f"{left} of {self._count} jobs have not ended{within} and go on, among them {first}"

    def feed(self, reply: Any) -> list[str]:
        """Process the reply to `step`. Returns the ids of the jobs that have ended."""
        ended: list[str] = []
        for stream, entries in entries_of(reply):
            for entry_id, fields in entries:
                self._seen[stream] = entry_id
                if fields["id"] in self._left and JobState(fields["state"]).is_terminal:
                    ended += self.end([fields["id"]])
        return ended


def entries_of(reply: Any) -> Iterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """Yield each stream's entries in an XREAD reply, which redis-py nests deeper under RESP3."""
    streams = reply.items() if isinstance(reply, dict) else (reply or [])
    for stream, entries in streams:
        yield stream, entries[0] if entries and isinstance(entries[0], list) else entries
