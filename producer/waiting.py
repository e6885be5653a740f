"""Waiting for jobs to end, without saying how the waiting is done.

The same object serves blocking and asynchronous callers: it makes the Redis command that
blocks until something happens, and takes in the reply. Each has a loop of four lines.
"""

import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

from crossmodal.errors import ResultTimeout
from crossmodal.jobs.names import events_key
from crossmodal.jobs.record import JobState

MAX_BLOCK_S = 2.0  # shorter than the socket timeout, so that a dead server is noticed
MOST_AT_ONCE = 32  # streams that one command reads; jobs end about in the order of these
IN_TURN_S = 0.1  # how long to wait for those that are read, where there are more


class Wait:
    """Follows the event streams of jobs until each has reached a terminal state."""

    def __init__(
        self,
        prefix: str,
        job_ids: Iterable[str],
        timeout_s: float | None,
        block_s: float,
        expiring: Iterable[str] = (),
    ) -> None:
        self._prefix = prefix
        self._ids = {events_key(prefix, job_id): job_id for job_id in job_ids}
        self._seen = dict.fromkeys(self._ids, "0")  # stream -> id of its last known event
        self._timeout_s = timeout_s
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._block_s = min(MAX_BLOCK_S, block_s)
        self._has_read = False
        self._expiring = set(expiring)

    def __bool__(self) -> bool:
        return bool(self._seen)

    def add(self, job_id: str) -> None:
        """Follow one more job."""
        stream = events_key(self._prefix, job_id)
        self._ids[stream] = job_id
        self._seen[stream] = "0"

    def command(self) -> list[Any]:
        """XREAD over unfinished streams. Raises `ResultTimeout` when the time is up.

        The oldest ones; where nothing happens to these, the next ones in turn.
        """
        streams = list(islice(self._seen, MOST_AT_ONCE))
        left = self._block_s if len(streams) == len(self._seen) else IN_TURN_S
        if self._deadline is not None:
            left = min(left, self._deadline - time.monotonic())
            if left <= 0 and self._has_read:  # one look is always had
                raise ResultTimeout(
                    f"{len(self._seen)} of the jobs did not end within {self._timeout_s:g} s, "
                    f"among them {self._ids[next(iter(self._seen))]}: they go on; ask again"
                )
        self._has_read = True
        block_ms = max(1, int(left * 1_000))
        seen = [self._seen[stream] for stream in streams]
        return ["XREAD", "BLOCK", block_ms, "STREAMS", *streams, *seen]

    @property
    def expiring(self) -> set[str]:
        """Unfinished jobs that end by the clock alone; somebody has to look at it."""
        return self._expiring.intersection(self._ids[stream] for stream in self._seen)

    def feed(self, reply: Any) -> list[str]:
        """Take in a reply to `command`; returns the ids of the jobs that have ended."""
        ended: list[str] = []
        if not reply:
            self._take_turns()
        streams = reply.items() if isinstance(reply, dict) else (reply or [])
        for stream, entries in streams:
            for entry_id, fields in _flat(entries):
                self._seen[stream] = entry_id
                if JobState(fields["state"]).is_terminal:
                    ended.append(self._ids[stream])
                    del self._seen[stream]
                    break
        return ended

    def _take_turns(self) -> None:
        if len(self._seen) > MOST_AT_ONCE:
            for stream in list(islice(self._seen, MOST_AT_ONCE)):
                self._seen[stream] = self._seen.pop(stream)  # now the last


def _flat(entries: Any) -> list[tuple[str, dict[str, str]]]:
    """Stream entries in one form: redis-py nests them once more under RESP3."""
    return entries[0] if entries and isinstance(entries[0], list) else entries
