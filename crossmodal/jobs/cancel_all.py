"""Cancels many jobs at once: all active jobs of some queues, or those of one owner."""

from collections.abc import Collection, Sequence

from crossmodal.jobs import names
from crossmodal.jobs.calls import Steps, call, redis
from crossmodal.jobs.record import JobState
from crossmodal.jobs.records import JobRecords

CHUNK = 500  # jobs per pipeline; other clients are served in between
MAX_PASSES = 10  # jobs move between a queue's sets while they are read
ACTIVE = (JobState.QUEUED, JobState.RUNNING)


class CancelAll(JobRecords):
    """The cancellation of all jobs submitted before the call."""

    @call
    def cancel_all(
        self, queues: Sequence[str], owner: str | None, states: Collection[JobState] = ACTIVE
    ) -> Steps[int]:
        """Cancel the jobs of an owner, or of all, in these queues; return how many.

        A batch with a message among them accepts no more messages.
        """
        before = yield from self.now()
        total = 0
        for _ in range(MAX_PASSES):
            found = 0
            for queue in queues:
                for state in states:
                    found += yield from self._cancel(self._queue_key(queue, state), owner, before)
            total += found
            if not found:
                break
        return total

    @call
    def _cancel(self, jobs: str, owner: str | None, before: float) -> Steps[int]:
        """Cancel the matching jobs of one of a queue's sets; skip the others."""
        passed = canceled = 0
        while ids := (yield redis.zrange(jobs, passed, passed + CHUNK - 1)):
            wanted = yield from self._wanted(ids, owner, before)
            replies = yield [self._on_job("cancel", job_id, self._retention) for job_id in wanted]
            canceled += sum(reply[0] == JobState.CANCELED for reply in replies)
            passed += len(ids) - len(wanted)
        return canceled

    @call
    def _wanted(self, ids: Sequence[str], owner: str | None, before: float) -> Steps[list[str]]:
        """Return those of the jobs to cancel; mark their batches as canceled."""
        keys = [names.job_key(self._prefix, job_id) for job_id in ids]
        records = yield [redis.hmget(key, "owner", "created_at", "batch", "state") for key in keys]
        wanted, batches = [], set()
        for job_id, (of, created_at, batch, state) in zip(ids, records, strict=True):
            is_theirs = owner is None or (of or "") == owner
            # Canceling an ended job does not remove it from the set: the loop would never end.
            if state in ACTIVE and float(created_at) <= before and is_theirs:
                wanted.append(job_id)
                batches.add(batch)
        yield [
            self._on_key("cancel_batch", batch, batch.rpartition(":")[2], "")
            for batch in sorted(batches - {None})
        ]
        return wanted
