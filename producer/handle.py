"""A submitted job, as its submitter holds it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from crossmodal.errors import JobCanceled, JobExpired, JobFailed, ResultTimeout
from crossmodal.jobs.record import Job, JobResult, JobState, JobStatus


class Follows(Protocol):
    """What a handle asks of its client."""

    def record(self, job_id: str) -> Job: ...
    def status(self, job_id: str) -> JobStatus: ...
    def cancel(self, job_id: str) -> JobState: ...
    def as_completed(
        self, jobs: Iterable[JobHandle], timeout_s: float | None = None
    ) -> Iterator[JobHandle]: ...


@dataclass(frozen=True)
class JobHandle:
    """An id and the client to ask about it; nothing is remembered, every call asks Redis."""

    client: Follows = field(repr=False, compare=False)
    id: str

    def status(self) -> JobStatus:
        """State, attempt, queue position and estimated wait."""
        return self.client.status(self.id)

    def cancel(self) -> JobState:
        """Cancel the job if it has not ended; returns the state it is in now."""
        return self.client.cancel(self.id)

    def wait(self, timeout_s: float | None = None) -> JobState:
        """The state the job ended in. Raises `ResultTimeout`."""
        for _ in self.client.as_completed([self], timeout_s):
            break
        return self.client.record(self.id).state

    def result(self, timeout_s: float | None = None) -> JobResult:
        """What the job made, once it has.

        Raises `JobFailed` with the code of its cause, `JobCanceled`, `JobExpired`, or
        `ResultTimeout`.
        """
        self.wait(timeout_s)
        return result_of(self.client.record(self.id))


def result_of(job: Job) -> JobResult:
    """The result of an ended job, or the error that says why it has none."""
    if job.state is JobState.CANCELED:
        raise JobCanceled(f"job {job.id} was canceled")
    if job.state is JobState.EXPIRED:
        raise JobExpired(f"job {job.id} expired before a worker started it")
    if job.state is JobState.FAILED and job.failure is not None:
        raise JobFailed(job.failure.message, job.failure.code, job.failure.retryable)
    if job.result is None:
        raise ResultTimeout(f"job {job.id} is {job.state}: it has no result yet; wait for it")
    return job.result
