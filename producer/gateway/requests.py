"""Schemas of requests: bodies, which have no unknown fields, and query parameters."""

from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from crossmodal.jobs.origin import ENDED, HookEvent
from crossmodal.jobs.record import JobState
from crossmodal.kinds.base import Kind
from crossmodal.kinds.registry import kinds
from crossmodal.kinds.task import Task
from crossmodal.unknown import nearest, unknown_fields
from producer.batches.inline import decoded
from producer.checks import MAX_KEEP_S


class Closed(BaseModel):
    """A model that refuses unknown fields and suggests the nearest known one."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _knows_all(cls, given: Any) -> Any:
        if isinstance(given, dict) and (said := unknown_fields(given, cls.model_fields)):
            raise PydanticCustomError("unknown_field", "{said}", {"said": said})
        return given


class JobRequest(BaseModel):
    """The fields of all jobs, beside the params that only their model has."""

    model_config = ConfigDict(extra="allow")

    task: str
    metadata: JsonValue = Field(
        default=None, description="Any JSON of yours; returned with the job."
    )
    expires_in_s: float | None = Field(
        default=None,
        ge=0,
        le=31_536_000,
        description="Seconds after which an unstarted job expires.",
    )
    priority: Literal[-1, 0, 1] = Field(
        default=0, description="1: before your other waiting jobs, -1: after them."
    )
    keep_s: float | None = Field(
        default=None,
        ge=1,
        le=MAX_KEEP_S,
        description="Seconds for which the record is kept after the job's end.",
    )
    webhook_url: str | None = Field(default=None, min_length=8, max_length=2_048)
    webhook_events: list[HookEvent] = Field(
        default=list(ENDED), min_length=1, max_length=5, description="Needs a `webhook_url`."
    )

    @field_validator("webhook_events")
    @classmethod
    def _have_a_receiver(cls, events: list[HookEvent], others: ValidationInfo) -> list[HookEvent]:
        if others.data.get("webhook_url", "") is None:  # absent if it is invalid
            raise PydanticCustomError("no_receiver", "needs a webhook_url")
        return events


class ByKey(Closed):
    """A stored picture: an upload, or one that a job has made."""

    key: str = Field(min_length=1, max_length=1_024)


class ByData(Closed):
    """A picture's file, in base64 or as a `data:` URL."""

    data: Annotated[
        bytes,
        BeforeValidator(lambda text: decoded(text, "image.data")),
        WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
    ]


class ByUrl(Closed):
    """The URL of a picture to fetch; refused unless the gateway allows it."""

    url: str = Field(min_length=8, max_length=2_048)


WAYS: dict[str, type[Closed]] = {"key": ByKey, "data": ByData, "url": ByUrl}


def _way(image: Any) -> str | None:
    """Return the field that gives a picture, else the nearest to a misspelled field."""
    if not isinstance(image, dict):
        return next((way for way, kind in WAYS.items() if isinstance(image, kind)), None)
    exact = (way for way in WAYS if way in image)
    meant = (nearest(str(name), WAYS) for name in islice(image, len(WAYS)))
    return next(exact, None) or next(filter(None, meant), None)


def _only_one(image: Any) -> Any:
    if isinstance(image, dict) and sum(way in image for way in WAYS) > 1:
        raise PydanticCustomError("several_ways", f"give one of {', '.join(WAYS)}")
    return image


Picture = Annotated[
    Annotated[ByKey, Tag("key")] | Annotated[ByData, Tag("data")] | Annotated[ByUrl, Tag("url")],
    Discriminator(
        _way,
        custom_error_type="no_picture",
        custom_error_message="give an object with a key, with data or with a url",
    ),
    BeforeValidator(_only_one),
]


def _request_of(kind: Kind) -> type[JobRequest]:
    """Return the body model of a kind's jobs: its params, with a picture in any of its ways.

    Other params are not checked here: a model may allow more than its kind, as a longer prompt.
    """
    shown = kind.params.model_json_schema()["properties"]
    fields: dict[str, Any] = {"task": (Literal[kind.name], ...)} | {
        name: (
            Annotated[Any, WithJsonSchema(shown[name])],
            ... if field.is_required() else field.default,
        )
        for name, field in kind.fields.items()
        if name != "metadata"
    }
    if kind.picture is not None:
        fields[kind.picture] = Picture, kind.fields[kind.picture]
    return create_model(
        kind.params.__name__.removesuffix("Params") + "Request",
        __base__=JobRequest,
        __doc__=f"{kind.params.__doc__}\n\nOther fields are params that only its model has.",
        **fields,
    )


REQUESTS: Mapping[str, type[JobRequest]] = {
    name: _request_of(kind) for name, kind in kinds().items()
}


class UploadRequest(Closed):
    """A picture to upload directly to the object store."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class JobQuery(BaseModel):
    """The filter and page of a list of the caller's jobs."""

    state: JobState | None = None
    task: Task | None = Field(default=None, description="Only jobs of this kind.")
    cursor: str | None = Field(default=None, max_length=200)
    limit: int = Field(default=20, ge=1, le=200)


class CancelRequest(Closed):
    """A filter of the unfinished jobs to cancel; without any field, all the caller's.

    A task without `.bulk` stands for both lanes.
    """

    state: Literal["queued", "running"] | None = None
    task: Task | None = None
    model: str | None = Field(
        default=None, max_length=64, description="The model's name or an alias."
    )
    key: str | None = Field(
        default=None,
        max_length=64,
        description="For operators: the id of the API key whose jobs to cancel; `*` for all jobs.",
    )


class BlobQuery(BaseModel):
    """How a blob is returned."""

    redirect: bool = Field(default=True, description="False: always the bytes, never a redirect.")
    number: int | None = Field(
        default=None,
        description="A preview's number; it only makes the URL of each preview unique.",
    )


class DeadLetterQuery(BaseModel):
    """The size of a list of dead letters."""

    limit: int = Field(default=50, ge=1, le=200)


class DeliveryQuery(BaseModel):
    """The filter and size of a list of deliveries."""

    job: str | None = Field(
        default=None, max_length=128, description="Only deliveries of this job."
    )
    limit: int = Field(default=50, ge=1, le=200)
