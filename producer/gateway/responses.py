"""Schemas of responses. Times are seconds since the epoch."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.config import JsonDict

from crossmodal.jobs.models import KnownModels
from crossmodal.jobs.record import (
    BatchStatus,
    Delivery,
    Failure,
    GeneratedCaption,
    ImageRef,
    Job,
    JobResult,
    JobState,
    ModelInfo,
    ModelState,
    Progress,
    QueueStatus,
    ServedKind,
    Timings,
    WorkerInfo,
)
from crossmodal.jobs.vocabulary import Vocabulary
from crossmodal.kinds.task import Task
from producer.told import failure_view

_URL = "https://pictures.example.com/v1/jobs/01a20026-8c96-7bba-8e3c-5db14a5fec48"
JOB: JsonDict = {
    "id": "01a20026-8c96-7bba-8e3c-5db14a5fec48",
    "task": "txt2img",
    "state": "queued",
    "attempt": 0,
    "created_at": 1795298856.087769,
    "started_at": None,
    "finished_at": None,
    "expires_at": None,
    "position": 3,
    "estimated_wait_s": 0.4,
    "waits_for": None,
    "progress": None,
    "params": {
        "format": "png",
        "quality": None,
        "embed_metadata": True,
        "prompt": "a red circle",
        "count": 1,
        "seed": 7,
        "temperature": 1.0,
    },
    "metadata": None,
    "result": None,
    "failure": None,
    "input_url": None,
    "status_url": _URL,
    "result_url": f"{_URL}/result",
    "events_url": f"{_URL}/events",
    "cancel_url": f"{_URL}/cancel",
    "retry_url": f"{_URL}/retry",
}


class ImageView(ImageRef):
    """A picture that a job has drawn, and its URL."""

    url: str


class ResultView(BaseModel):
    """The result of a job."""

    images: list[ImageView]
    captions: list[GeneratedCaption]
    seed: int | None
    unknown_words: list[str]
    suggestions: dict[str, str]
    warnings: list[str]
    model: str
    bundle_version: str
    repeatable: Literal["exact", "close"] | None
    timings: Timings
    batch_size: int
    attempt: int


class ProgressView(BaseModel):
    """The progress of a running job: `step` of `of`, and the estimated seconds left."""

    step: int
    of: int
    left_s: float
    preview_url: str | None = Field(
        default=None,
        description="URL of a small JPEG of what is drawn so far; it changes with each preview, "
        "and is gone at the job's end.",
    )


class JobView(BaseModel):
    """A job: its state, and its result or failure."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB]})

    id: str
    task: Task
    state: JobState
    attempt: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    expires_at: float | None
    position: int | None = Field(description="How many waiting jobs are before it.")
    estimated_wait_s: float | None
    waits_for: str | None = Field(
        description="What it waits for besides its turn: a worker, or its model."
    )
    progress: ProgressView | None = Field(
        description="For running jobs of models that report their steps."
    )
    params: dict[str, Any]
    metadata: JsonValue
    result: ResultView | None
    failure: Failure | None
    input_url: str | None
    status_url: str
    result_url: str
    events_url: str
    cancel_url: str
    retry_url: str


class JobPage(BaseModel):
    """A page of jobs, the latest first; `next_cursor` is null on the last page."""

    data: list[JobView]
    next_cursor: str | None


class Canceled(BaseModel):
    """The number of canceled jobs; bulk messages are counted, too."""

    canceled: int


class UploadView(BaseModel):
    """A stored picture; a job names it by its `key`."""

    key: str
    media_type: str
    size: int
    sha256: str
    url: str


class SignedUpload(BaseModel):
    """A URL to PUT the picture's bytes to; then jobs can name it by `key`."""

    key: str
    put_url: str
    expires_in_s: float


class BatchView(BaseModel):
    """A batch job; once `completed`, `output_url` has a result or an error a line."""

    id: str
    task: Task | None = Field(description="Null if the file mixes kinds.")
    status: Literal["in_progress", "completed", "canceling", "failed"]
    request_counts: dict[str, int]
    created_at: float
    failure: Failure | None = None
    status_url: str
    output_url: str
    cancel_url: str


class QueuesView(BaseModel):
    """All queues, and the workers that serve them."""

    queues: list[QueueStatus]
    workers: list[WorkerInfo]
    may_pause: bool = Field(description="Whether the caller may pause and resume queues.")


class ModelView(BaseModel):
    """A model: its kinds, each with the JSON schema of its params, and its workers.

    `id`, `object`, `created` and `owned_by` are for clients of OpenAI's API.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "crossmodal"
    name: str
    version: str
    state: ModelState
    workers: int = Field(description="How many workers have it loaded.")
    devices: list[str]
    kinds: dict[str, ServedKind]
    default_for: list[str] = Field(description="The kinds whose default model it is.")
    aliases: list[str]
    description: str
    format: str
    load_s: float | None
    peak_bytes: int | None
    vocabulary: Vocabulary | None = Field(
        description="The words that the model knows, if limited; in a list of models, only the "
        "first ones. Null until the model was loaded."
    )
    failure: Failure | None


class ModelPage(BaseModel):
    """All models that workers have reported."""

    object: Literal["list"] = "list"
    data: list[ModelView]


class DeadLetterView(BaseModel):
    """A dead letter: what was given up, and why."""

    id: str
    at: float
    queue: str
    code: str
    message: str
    job: JobView | None


class DeadLetterPage(BaseModel):
    """The latest dead letters."""

    data: list[DeadLetterView]
    next_cursor: str | None = None


class Replayed(BaseModel):
    """The new job of a replayed dead letter; null for a message that was requeued."""

    job: str | None


class DeliveryPage(BaseModel):
    """The latest deliveries of webhooks."""

    data: list[Delivery]


class WebhookSecret(BaseModel):
    """The secret that signs deliveries (Standard Webhooks)."""

    secret: str


class Urls:
    """A builder of a gateway's absolute URLs."""

    def __init__(self, base: str) -> None:
        self.base = base.rstrip("/")

    def job(self, job_id: str, part: str = "") -> str:
        return f"{self.base}/v1/jobs/{job_id}{part}"

    def blob(self, key: str) -> str:
        return f"{self.base}/v1/blobs/{key}"

    def batch(self, batch_id: str, part: str = "") -> str:
        return f"{self.base}/v1/batches/{batch_id}{part}"


def job_view(
    job: Job,
    urls: Urls,
    position: int | None = None,
    estimated_wait_s: float | None = None,
    waits_for: str | None = None,
) -> JobView:
    """Return a job's view: with its URLs, without the ledger's internal fields."""
    params = {name: value for name, value in job.params.items() if name != "metadata"}
    image = params.get("image")
    return JobView(
        **job.model_dump(
            include={
                "id",
                "task",
                "state",
                "attempt",
                "created_at",
                "started_at",
                "finished_at",
                "expires_at",
            }
        ),
        progress=None if job.progress is None else progress_view(job.progress, urls),
        position=position,
        estimated_wait_s=estimated_wait_s,
        waits_for=waits_for,
        params=params,
        metadata=job.params.get("metadata"),
        result=None if job.result is None else _result_view(job.result, urls),
        failure=failure_view(job.failure) if job.state.is_terminal else None,
        input_url=urls.blob(image["key"]) if isinstance(image, dict) and "key" in image else None,
        status_url=urls.job(job.id),
        result_url=urls.job(job.id, "/result"),
        events_url=urls.job(job.id, "/events"),
        cancel_url=urls.job(job.id, "/cancel"),
        retry_url=urls.job(job.id, "/retry"),
    )


def progress_view(progress: Progress, urls: Urls) -> ProgressView:
    """Return a job's progress, with the URL of its preview."""
    shown = progress.preview
    url = None if shown is None else f"{urls.blob(shown.key)}?number={shown.number}"
    return ProgressView(step=progress.step, of=progress.of, left_s=progress.left_s, preview_url=url)


def _result_view(result: JobResult, urls: Urls) -> ResultView:
    images = [ImageView(**i.model_dump(), url=urls.blob(i.key)) for i in result.images]
    shown = result.model_dump(include=set(ResultView.model_fields) - {"images"})
    return ResultView(images=images, **shown)


def model_view(known: KnownModels, model: ModelInfo) -> ModelView:
    """Return a model's view, with its state and workers."""
    holders = known.holders(model.name)
    return ModelView(
        **model.model_dump(exclude={"noted_at"}),
        state=known.state(model.name),
        id=model.name,
        created=int(model.noted_at),
        workers=len(holders),
        devices=sorted({w.device for w in holders if w.device}),
        failure=known.failure(model.name),
    )


def batch_counts(found: BatchStatus) -> dict[str, int]:
    """Return the counts under their names in the OpenAI Batch API."""
    return {"total": found.total, "completed": found.completed, "failed": found.failed}
