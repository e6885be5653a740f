"""The events of one job, for a client that follows it."""

import time
from dataclasses import dataclass
from typing import Any

from crossmodal.jobs.calls import Waiting, redis
from crossmodal.jobs.ledger import WATCH_S
from crossmodal.jobs.names import shard_key
from crossmodal.jobs.record import Job, JobEvent, JobState, Progress
from producer.waiting import CHECK_S, MAX_BLOCK_S, entries_of

Event = JobEvent | Progress


@dataclass
class Events:
    """The position of a client that follows a job's events."""

    job: str
    prefix: str
    block_s: float
    is_done: bool = False
    is_running: bool = False
    read_until: str = ""  # id of the last stream entry that was read
    told_at: float = 0.0
    check_at: float = 0.0  # when the record is read again at the latest
    watch_at: float = 0.0  # when the watch is renewed
    progress: Progress | None = None  # the last one returned

    def wait(self) -> Waiting:
        """Return the step that waits for an event of this job, or of another in its stream."""
        block_ms = max(1, int(1_000 * min(MAX_BLOCK_S, self.block_s)))
        stream = shard_key(self.prefix, self.job)
        return Waiting(redis.xread({stream: self.read_until}, block=block_ms))

    def is_to_be_watched(self) -> bool:
        """Whether the watch of a running job must be renewed now."""
        now = time.monotonic()
        is_due = self.is_running and now >= self.watch_at
        if is_due:
            self.watch_at = now + WATCH_S
        return is_due

    def feed(self, reply: Any) -> tuple[list[Event], bool]:
        """Process the reply to `wait`: return new progress, and whether to read the record.

        The record is read when it has changed and every few seconds: some changes send no event.
        """
        entries = [entry for _, some in entries_of(reply) for entry in some]
        steps: list[Event] = []
        has_changed = time.monotonic() >= self.check_at
        for self.read_until, fields in entries:
            if fields["id"] != self.job:
                continue
            if "progress" in fields:
                steps += self._new(Progress.model_validate_json(fields["progress"]))
            else:
                has_changed = True
        return steps, has_changed

    def take(self, job: Job, history: list[JobEvent]) -> list[Event]:
        """Return the new events of a record and its history."""
        news: list[Event] = [event for event in history if event.at > self.told_at]
        if history:
            self.told_at = history[-1].at
        self.is_done = job.state.is_terminal
        self.is_running = job.state is JobState.RUNNING
        self.check_at = time.monotonic() + CHECK_S
        return news + self._new(job.progress)

    def _new(self, progress: Progress | None) -> list[Event]:
        if progress is None or progress == self.progress:
            return []
        self.progress = progress
        return [progress]
