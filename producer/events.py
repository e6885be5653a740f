"""What happens to one job, step by step, for somebody who follows it."""

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
    """How far somebody has followed a job: all that happened later is still to be told."""

    job: str
    prefix: str
    block_s: float
    is_done: bool = False
    is_running: bool = False
    read_until: str = ""  # the id of the last entry that was read of the stream
    told_at: float = 0.0
    check_at: float = 0.0  # when the record is read at the latest
    watch_at: float = 0.0  # when it is said again that somebody watches
    progress: Progress | None = None  # that was told last

    def wait(self) -> Waiting:
        """The step that waits until something happens, to this job or to another."""
        block_ms = max(1, int(1_000 * min(MAX_BLOCK_S, self.block_s)))
        stream = shard_key(self.prefix, self.job)
        return Waiting(redis.xread({stream: self.read_until}, block=block_ms))

    def is_to_be_watched(self) -> bool:
        """Whether it is time to say that somebody watches; of a job that runs."""
        now = time.monotonic()
        is_due = self.is_running and now >= self.watch_at
        if is_due:
            self.watch_at = now + WATCH_S
        return is_due

    def feed(self, reply: Any) -> tuple[list[Event], bool]:
        """Take in the reply to `wait`: the steps of this job, and whether its record is to be read.

        That is where it has changed, and every few seconds: not all that happens is told.
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
        """What is new in a record and its history."""
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
