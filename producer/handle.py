"""Handles of submitted jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from crossmodal.errors import InvalidParams, JobCanceled, JobExpired, JobFailed, ResultTimeout
from crossmodal.jobs.record import Job, JobEvent, JobResult, JobState, JobStatus, Progress
from crossmodal.kinds.fields import BlobRef
from crossmodal.unknown import shown
from producer.checks import check_several
from producer.live import told
from producer.notebook import job_html, with_pictures


class Handle:
    """A reference to a job: its `id`, and a client to query it with."""

    id: str


class Follows(Protocol):
    """The part of a client that a handle uses."""

    def status(self, job: Handle | str) -> JobStatus: ...
    def cancel(self, job: Handle | str) -> JobState: ...
    def events(self, job: Handle | str) -> Iterator[JobEvent | Progress]: ...
    def record(self, job: Handle | str) -> Job: ...
    def read(self, blob: BlobRef) -> bytes: ...
    def _ended(
        self,
        job: Handle | str,
        timeout_s: float | None = None,
        tell: Callable[[JobStatus], object] | None = None,
    ) -> Job: ...


@dataclass(frozen=True)
class JobHandle(Handle):
    """A job's id and a client to query it with; nothing is cached, every call reads Redis."""

    client: Follows = field(repr=False, compare=False)
    id: str

    def status(self) -> JobStatus:
        """Return state, attempt, queue position and estimated wait."""
        return self.client.status(self.id)

    def events(self) -> Iterator[JobEvent | Progress]:
        """Yield the job's past events, then new ones until it has ended."""
        return self.client.events(self.id)

    def cancel(self) -> JobState:
        """Cancel the job if it has not ended; returns its state now."""
        return self.client.cancel(self.id)

    def wait(self, timeout_s: float | None = None) -> JobState:
        """Wait until the job has ended; returns its state. Raises `ResultTimeout`."""
        return self.client._ended(self.id, timeout_s).state

    def result(self, timeout_s: float | None = None, progress: bool = False) -> JobResult:
        """Wait for the job's result; `progress` shows its progress meanwhile.

        Raises `JobFailed` with the code of its cause, `JobCanceled`, `JobExpired`, or
        `ResultTimeout`.
        """
        with told(progress) as tell:
            job = self.client._ended(self.id, timeout_s, tell)
        return with_pictures(result_of(job), self.client.read)

    def _repr_html_(self) -> str:
        return job_html(self.client, self.id)


def id_of(job: Any) -> str:
    """Return the id of a job given as handle or id. Raises `InvalidParams`."""
    if isinstance(job, Handle):
        return job.id
    if not isinstance(job, str):
        raise InvalidParams(f"the job is {shown(job)}: give a handle, or a job's id as text")
    return job


def ids_of(jobs: Any) -> list[str]:
    """Return the ids of several jobs, without duplicates. Raises `InvalidParams`."""
    several = check_several("jobs", jobs, but=isinstance(jobs, str | bytes))
    return list(dict.fromkeys(id_of(job) for job in several))


def result_of(job: Job) -> JobResult:
    """Return the result of an ended job, or raise the error that says why it has none."""
    if job.state is JobState.CANCELED:
        raise JobCanceled(f"job {job.id} was canceled")
    if job.state is JobState.EXPIRED:
        raise JobExpired(f"job {job.id} expired before a worker started it")
    if job.state is JobState.FAILED and job.failure is not None:
        raise JobFailed(job.failure.message, job.failure.code, job.failure.retryable)
    if job.result is None:
        raise ResultTimeout(f"job {job.id} is {job.state}: it has no result yet; wait for it")
    return job.result
