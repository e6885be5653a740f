"""What a worker is given to do, and how it ends, between Celery's side and the jobs'."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crossmodal.jobs.record import Failure, JobResult
from crossmodal.kinds.task import Task


@dataclass(frozen=True)
class Delivery:
    """A message as it was taken from `queue` by the worker called `worker`.

    `is_recorded` says that its sender had opened the job's record, so that a job without one
    has outlived it; `expires_in_s` and `traceparent` are of a job that has none yet.
    """

    job: str
    task: Task
    raw: Mapping[str, Any]
    worker: str
    queue: str = ""
    has_positional: bool = False
    is_recorded: bool = False
    expires_in_s: float | None = None
    traceparent: str | None = None


@dataclass(frozen=True)
class Skipped:
    """The message needs no work: its job is `canceled`, `expired` or `unknown`, or the attempt was
    `superseded` by another, which will tell."""

    reason: str


@dataclass(frozen=True)
class Busy:
    """Another attempt at the job is alive. The message must come back, in case that one dies."""


@dataclass(frozen=True)
class Elsewhere:
    """The job is not to be run here, or not now. The message must go back to its queue."""

    why: str = "its model is not loaded here"


@dataclass(frozen=True)
class Released:
    """The attempt failed in a way that may pass; the job waits for the next one.

    `tries` grows with each attempt that ended so, whether it counts or not.
    """

    failure: Failure
    tries: int

    @property
    def code(self) -> str:
        return self.failure.code


Ending = JobResult | Failure | Skipped | Busy | Elsewhere | Released
