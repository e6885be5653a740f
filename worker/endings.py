"""The types between Celery's side and the job runner: a message, and how it ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crossmodal.jobs.record import Failure, JobResult
from crossmodal.kinds.task import Task


@dataclass(frozen=True)
class TakenMessage:
    """A message that the worker called `worker` took from `queue`.

    `is_recorded`: the sender created the job's record, so a job without one has outlived it.
    `expires_in_s` and `traceparent` are for a job that has no record yet.
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
    """The message needs no work.

    Its job is `canceled`, `expired` or `unknown`, or the attempt was `superseded` by another,
    which reports the outcome.
    """

    reason: str


@dataclass(frozen=True)
class Busy:
    """Another attempt at the job is alive. The message must come back in case that attempt dies."""


@dataclass(frozen=True)
class Elsewhere:
    """The job cannot run here, or not now. The message must go back to its queue."""

    why: str = "its model is not loaded here"


@dataclass(frozen=True)
class Released:
    """The attempt failed with a retryable error; the job waits for the next one.

    `tries` grows with each such attempt, whether it counts or not.
    """

    failure: Failure
    tries: int

    @property
    def code(self) -> str:
        return self.failure.code


Ending = JobResult | Failure | Skipped | Busy | Elsewhere | Released
