"""Records of the ledger: jobs, their results and failures, batches, queues, workers, models."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from crossmodal.errors import CrossmodalError
from crossmodal.jobs.shown import Shown
from crossmodal.jobs.vocabulary import Vocabulary
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.task import Task

NOBODY_TAKES_S = 5.0  # no worker takes jobs if none runs and the oldest has waited this long


class JobState(StrEnum):
    """The state of a job; the last four are final."""

    QUEUED = "queued"
    """Accepted; no worker has it, or its last attempt failed and it waits for another."""
    RUNNING = "running"
    """A worker has started an attempt."""
    SUCCEEDED = "succeeded"
    """Its result is recorded and its blobs are in the object store."""
    FAILED = "failed"
    """It ended without a result; `Failure.code` says why."""
    CANCELED = "canceled"
    """It was canceled before it finished; a later result was refused."""
    EXPIRED = "expired"
    """No worker started it before its `expires_in_s` ran out."""

    @property
    def is_terminal(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING)


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ImageRef(BlobRef):
    """A picture in the object store, `width` × `height` pixels."""

    width: int
    height: int


class GeneratedCaption(_Value):
    """A caption and the natural logarithm of its probability under the model."""

    text: str
    log_probability: float = Field(allow_inf_nan=False)


class Timings(_Value):
    """The durations of the successful attempt's phases, in seconds."""

    queued_s: float
    batch_wait_s: float
    inference_s: float
    store_s: float
    total_s: float


class JobResult(Shown, _Value):
    """The result of a succeeded job."""

    job: str
    task: Task
    params: dict[str, JsonValue]
    images: tuple[ImageRef, ...] = ()
    captions: tuple[GeneratedCaption, ...] = ()
    parts: tuple[BlobRef, ...] = ()
    """The files of a bulk job's `ItemResult`s; `completed` and `failed` count them."""
    completed: int = 0
    failed: int = 0
    seed: int | None = None
    unknown_words: tuple[str, ...] = ()
    suggestions: dict[str, str] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    """Warnings for the caller, such as a prompt longer than the model reads."""
    model: str
    bundle_version: str
    repeatable: Literal["exact", "close"] | None = None
    """Whether the same seed and params give the same bytes (`exact`) or nearly (`close`)."""
    timings: Timings
    batch_size: int
    attempt: int
    metadata: JsonValue = None


class Failure(_Value):
    """The reason why a job, or its last attempt, ended without a result."""

    code: str
    message: str
    retryable: bool = False

    @classmethod
    def of(cls, error: CrossmodalError) -> "Failure":
        return cls(code=error.code, message=str(error), retryable=error.retryable)


class ItemResult(Shown, _Value):
    """The outcome of one item of a bulk job; `index` is its place in the message.

    It has pictures, captions, or the failure that prevented them.
    """

    index: int
    custom_id: str
    images: tuple[ImageRef, ...] = ()
    captions: tuple[GeneratedCaption, ...] = ()
    seed: int | None = None
    unknown_words: tuple[str, ...] = ()
    suggestions: dict[str, str] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    failure: Failure | None = None


ITEM_RESULTS = TypeAdapter(list[ItemResult])
"""Validates a list in half the time of one by one."""


class PreviewRef(BlobRef):
    """A small picture of the unfinished image; the next one replaces it, with `number` + 1."""

    media_type: str = "image/jpeg"
    number: int


class Progress(_Value):
    """The progress of the running attempt: `step` of `of`, and about `left_s` seconds to go."""

    step: int
    of: int
    left_s: float
    preview: PreviewRef | None = None
    """A preview, if the model makes them and a client follows the job."""


class Job(_Value):
    """A job's record in the ledger. Times are seconds since the epoch, by Redis's clock."""

    id: str
    task: Task
    queue: str
    state: JobState
    attempt: int
    params: dict[str, Any]
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    expires_at: float | None = None
    sent_at: float | None = None
    held: bool = False
    """Whether its message is held in its owner's backlog."""
    owner: str = ""
    priority: int = 0
    keep_s: float | None = None
    worker: str | None = None
    progress: Progress | None = None
    """The progress of a running job, if its model reports steps."""
    result: JobResult | None = None
    failure: Failure | None = None


class JobEvent(_Value):
    """A transition in a job's history; `code` is the reason why the attempt or the job ended."""

    state: JobState
    attempt: int
    code: str = ""
    at: float


class DeadLetter(_Value):
    """A dead letter: a job with its history, or the bytes of a message that is no valid job.

    `size` is the size of the whole message; `raw` may be only its beginning. `queue` is empty if
    the source queue is unknown.
    """

    id: str
    at: float
    code: str
    message: str
    queue: str
    job: Job | None = None
    history: tuple[JobEvent, ...] = ()
    raw: bytes | None = None
    size: int | None = None


class BatchStatus(_Value):
    """The progress of a batch: counts of its items, and of its messages by state.

    `task` is None if its messages are of several kinds. All items of a message that did not
    succeed count as failed, although readers get those that were finished before its end.
    """

    id: str
    task: Task | None
    total: int
    completed: int
    failed: int
    messages: dict[JobState, int]

    @property
    def is_done(self) -> bool:
        return all(state.is_terminal for state in self.messages)


class Delivery(_Value):
    """A webhook delivery; `status` is the HTTP status of the last of its `tries`."""

    id: str
    job: str
    task: Task
    state: JobState
    attempt: int
    code: str = ""
    owner: str = ""
    url: str
    base: str
    created_at: float
    outcome: Literal["pending", "delivered", "failed"]
    tries: int
    status: int | None = None
    error: str | None = None
    tried_at: float | None = None
    next_at: float | None = None


class JobStatus(_Value):
    """A job's state, with its place in the queue and estimated wait for a waiting client."""

    id: str
    state: JobState
    attempt: int
    position: int | None = None
    estimated_wait_s: float | None = None
    waits_for: str | None = None
    """What a queued job waits for besides its turn: `a worker`, `loading turbo`, `a device for
    turbo`."""
    progress: Progress | None = None
    failure: Failure | None = None


class QueueStatus(_Value):
    """A queue at one moment; `finished` counts jobs by terminal state.

    `redelivered` counts attempts after a job's first, `failures` failed jobs by code.
    `mean_item_s`, of a bulk queue, is a job's run time divided by its items. `mean_gap_s` is the
    time between two ends of jobs, across all workers, while jobs wait.
    """

    queue: str
    depth: int
    running: int
    oldest_wait_s: float
    mean_run_s: float | None
    mean_item_s: float | None = None
    mean_gap_s: float | None = None
    finished: dict[str, int]
    submitted: int = 0
    redelivered: int = 0
    failures: dict[str, int] = Field(default_factory=dict)
    paused: bool = False
    """Whether the queue is paused: its waiting jobs are not started."""

    @property
    def has_been_used(self) -> bool:
        """Return whether the queue ever had a job, or is paused."""
        return bool(self.depth or self.running or self.submitted or self.finished or self.paused)

    def wait_s(self, position: int) -> float | None:
        """Return the estimated seconds until the job with `position` others before it starts.

        None if there are no measurements yet or no worker takes jobs.
        """
        if self.paused or (not self.running and self.oldest_wait_s > NOBODY_TAKES_S):
            return None
        gap_s = likely_gap_s(self.mean_gap_s, self.mean_run_s, self.running)
        return None if gap_s is None else round((position + 1) * gap_s, 3)


def likely_gap_s(mean_gap_s: float | None, mean_run_s: float | None, running: int) -> float | None:
    """Return the seconds between two ends of a queue's jobs while others wait.

    As measured; until then, assumes that the running jobs end evenly spread over a mean run.
    """
    if mean_gap_s is not None:
        return mean_gap_s
    return None if mean_run_s is None else mean_run_s / max(running, 1)


class WorkerInfo(_Value):
    """A Celery worker's last announcement, and the models that its model hosts serve.

    `model` and `bundle_version` belong to its default model, or its first. `models` are loaded,
    `loading` are about to be, `unloaded` may be loaded in place of others, and `failures` are the
    reasons why others cannot be. While the worker takes no jobs, for example without its object
    store, `waits_for` names what it waits for.
    """

    name: str
    queues: tuple[str, ...]
    device: str | None = None
    model: str | None = None
    bundle_version: str | None = None
    models: tuple[str, ...] = ()
    loading: tuple[str, ...] = ()
    unloaded: tuple[str, ...] = ()
    failures: dict[str, Failure] = Field(default_factory=dict)
    waits_for: str = ""
    seen_at: float


class ServedKind(_Value):
    """A kind that a model serves, as measured in its warm-up.

    `params` is the JSON schema of its params, None until a worker has loaded it; `run_s` and
    `step_s` are seconds with default params. The same seed gives the same bytes if `repeatable` is
    `exact`, nearly the same if it is `close`.
    """

    params: dict[str, JsonValue] | None = None
    max_batch: int | None = None
    run_s: float | None = None
    step_s: float | None = None
    repeatable: Literal["exact", "close"] | None = None


class ModelState(StrEnum):
    """The state of a model, from what all workers report."""

    LOADED = "loaded"
    """At least one worker has it loaded."""
    LOADING = "loading"
    """A worker is loading it."""
    UNLOADED = "unloaded"
    """A worker loads it once jobs wait for it."""
    BROKEN = "broken"
    """No worker can load it."""
    ABSENT = "absent"
    """No running worker has its folder."""


class ModelInfo(_Value):
    """A model and the kinds that it serves. Times are in seconds."""

    name: str
    version: str
    format: str
    kinds: dict[str, ServedKind]
    default_for: tuple[str, ...] = ()
    """The kinds for which it is the default model."""
    aliases: tuple[str, ...] = ()
    description: str = ""
    load_s: float | None = None
    peak_bytes: int | None = None
    vocabulary: Vocabulary | None = None
    """The vocabulary of a loaded model; lists of models have only some of its words."""
    noted_at: float = 0.0

    def completed(self, known: "ModelInfo | None") -> "ModelInfo":
        """Return this with the measurements of `known`, if not loaded and of the same version."""
        if known is None or known.version != self.version or self.load_s is not None:
            return self
        return self.model_copy(
            update={
                "kinds": known.kinds,
                "load_s": known.load_s,
                "peak_bytes": known.peak_bytes,
                "vocabulary": known.vocabulary,
            }
        )
