"""`/v1/batches` of OpenAI's API: batch jobs of uploaded files."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, JsonValue

from crossmodal.errors import InvalidParams, JobNotFound
from crossmodal.jobs.access import ApiKey
from crossmodal.jobs.files import bytes_of_file
from crossmodal.jobs.http_batches import HttpBatch, Source
from crossmodal.kinds.registry import kinds
from crossmodal.scratch import scratch_folder
from producer.gateway.batch_records import counts_of, keep
from producer.gateway.caller import Caller, ListInTurn
from producer.gateway.openai.errors import TAG, documented
from producer.gateway.openai.files import ERRORS, OUTPUT, file_of, outputs, page
from producer.gateway.openai.lines import KINDS, translator
from producer.gateway.requests import Closed
from producer.gateway.services import Services, ServicesOf, Turns

PREFIX = "batch_"

router = APIRouter(prefix="/v1/batches", tags=[TAG])


class BatchRequest(Closed):
    """A batch job of the lines of an uploaded file."""

    input_file_id: str = Field(max_length=200)
    endpoint: str = Field(max_length=100, description="The url of its lines.")
    completion_window: JsonValue = "24h"
    metadata: dict[str, str] | None = Field(default=None, max_length=16)
    output_expires_after: None = None


class BatchErrors(BaseModel):
    """Why a batch job failed."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]


class OpenAiBatch(BaseModel):
    """A batch job in OpenAI's format. Its two output files exist once all lines have ended."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str = "24h"
    status: Literal["in_progress", "completed", "cancelling", "cancelled", "failed"]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int
    completed_at: int | None
    failed_at: int | None
    cancelled_at: int | None
    request_counts: dict[str, int]
    metadata: dict[str, str] | None


class BatchPage(BaseModel):
    """A page of batch jobs, the latest first."""

    object: Literal["list"] = "list"
    data: list[OpenAiBatch]
    first_id: str | None
    last_id: str | None
    has_more: bool


class BatchQuery(BaseModel):
    """The page of a list of batch jobs."""

    after: str | None = Field(default=None, max_length=200)
    limit: int = Field(default=20, ge=1, le=100)


async def create(wanted: BatchRequest, key: ApiKey, services: Services) -> OpenAiBatch:
    """Start a batch job of an uploaded file."""
    if wanted.endpoint not in (known := [*KINDS, *(f"/v1/{name}" for name in kinds())]):
        raise InvalidParams(
            f"endpoint: {wanted.endpoint!r} is not supported: use one of {', '.join(known)}",
            "endpoint",
        )
    await services.ask(services.batches.check_room(key.id))
    file = await file_of(wanted.input_file_id, key.id, services)
    source = Source(file=wanted.input_file_id, endpoint=wanted.endpoint, metadata=wanted.metadata)
    record = await services.in_turns(_kept(bytes_of_file(file.id), key, services, source))
    return await view(record, services)


@router.get("", response_model=BatchPage, responses=documented(), dependencies=[ListInTurn])
async def list_batches(
    key: Caller, services: ServicesOf, query: Annotated[BatchQuery, Query()]
) -> BatchPage:
    """List the caller's batch jobs of both interfaces."""
    ids = await services.ask(services.batches.of(key.id))
    names, more = page(ids, (query.after or "").removeprefix(PREFIX), query.limit)
    data = []
    for name in names:
        try:
            data.append(await view(await services.ask(services.batches.get(name)), services))
        except JobNotFound:  # its retention time was over
            continue
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return BatchPage(data=data, first_id=first, last_id=last, has_more=more)


def _kept(stored: str, key: ApiKey, services: Services, source: Source) -> Turns[HttpBatch]:
    storage = services.sync.storage
    found = storage.head(stored)
    if found is None:
        raise JobNotFound(f"the bytes of {source.file} have outlived CROSSMODAL_RETENTION_S")
    with scratch_folder("upload") as folder:
        path = folder / "input.jsonl"
        with path.open("wb") as file:
            file.writelines(storage.stream(stored, 0, found.size))
        return (yield from keep(path, key, services, translator(services), source))


async def view(record: HttpBatch, services: Services) -> OpenAiBatch:
    """Return a batch job in OpenAI's format."""
    source = record.source or Source(file="", endpoint=f"/v1/{record.task.kind.name}")
    made = {
        one.id.removeprefix(f"file-{record.id}"): one for one in await outputs(record, services)
    }
    status, ended = _status(record), None if record.ended_at is None else int(record.ended_at)
    failure = record.failure
    return OpenAiBatch(
        id=PREFIX + record.id,
        endpoint=source.endpoint,
        input_file_id=source.file,
        status=status,
        errors=None
        if failure is None
        else BatchErrors(
            data=[{"code": failure.code, "message": failure.message, "line": None, "param": None}]
        ),
        output_file_id=made[OUTPUT].id if OUTPUT in made else None,
        error_file_id=made[ERRORS].id if ERRORS in made else None,
        created_at=int(record.created_at),
        in_progress_at=int(record.created_at),
        completed_at=ended if status == "completed" else None,
        failed_at=ended if status == "failed" else None,
        cancelled_at=ended if status == "cancelled" else None,
        request_counts={"total": record.total, **await counts_of(record, services)},
        metadata=source.metadata,
    )


def _status(
    record: HttpBatch,
) -> Literal["in_progress", "completed", "cancelling", "cancelled", "failed"]:
    if not record.is_done:
        return "cancelling" if record.is_canceled else "in_progress"
    if record.failure is not None:
        return "failed"
    return "cancelled" if record.is_canceled else "completed"
