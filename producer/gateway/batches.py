"""`/v1/batches`: a file of requests in, a file of results out."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import anyio
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from crossmodal.errors import CrossmodalError, JobNotFound, WrongState
from crossmodal.jobs.access import ApiKey
from crossmodal.jobs.http_batches import MEDIA_TYPE, HttpBatch, input_of, output_of
from crossmodal.jobs.names import new_job_id
from crossmodal.scratch import scratch_folder
from producer.gateway.caller import Caller, UrlsOf
from producer.gateway.intake import check_lines
from producer.gateway.ownership import is_visible, may_see, missing
from producer.gateway.problems import UnsupportedMediaType, documented, linked
from producer.gateway.services import Services, ServicesOf
from producer.gateway.shapes import BatchView, Urls, batch_counts
from producer.jsonl import BatchFile

READ_AS = (MEDIA_TYPE, "application/x-ndjson", "application/octet-stream", "text/plain")
LINES = (
    '{"custom_id": "a", "url": "/v1/txt2img", "body": {"prompt": "a red circle"}}\n'
    '{"custom_id": "b", "url": "/v1/img2txt", "body": {"image": {"key": "inputs/9f/9f86d0…"}}}\n'
)
NOTHING = {"completed": 0, "failed": 0}

router = APIRouter(prefix="/v1/batches", tags=["batches"])


async def own_batch(batch_id: str, key: Caller, services: ServicesOf) -> HttpBatch:
    """The batch, if it is the caller's."""
    try:
        record = await services.ask(services.batches.get(batch_id))
    except JobNotFound:
        record = None
    if record is None or not may_see(key.id, record.owner):
        raise JobNotFound(missing("batch", batch_id, key.id))
    return record


OwnBatch = Annotated[HttpBatch, Depends(own_batch)]


@router.post(
    "", status_code=202, response_model=BatchView,
    responses=documented(413, 415) | {
        202: {"description": "Kept: it will be run to its end.", "links": linked("batch_id", {
            "look": "~1v1~1batches~1{batch_id}/get",
            "output": "~1v1~1batches~1{batch_id}~1output/get",
            "cancel": "~1v1~1batches~1{batch_id}~1cancel/post",
        })},
    },
    openapi_extra={"requestBody": {"required": True, "content": {
        MEDIA_TYPE: {"schema": {"type": "string"}, "example": LINES},
    }}},
)  # fmt: skip
async def create(
    request: Request, response: Response, key: Caller, services: ServicesOf, urls: UrlsOf
) -> BatchView:
    """Take a file of requests, one a line, in the shape of the OpenAI Batch API's.

    A line has a `url`, /v1/txt2img or /v1/img2txt, a `body` with what such a job takes, and perhaps
    a `custom_id`, by which its result is named. A file may mix both kinds. A line with a field that
    is not known fails, and the others do not mind.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in READ_AS:
        raise UnsupportedMediaType(f"the body is {kind[:80]!r}: send {MEDIA_TYPE}")
    await services.ask(services.batches.check_room(key.id))
    with scratch_folder("upload") as folder:
        path = folder / "input.jsonl"
        async with await anyio.open_file(path, "wb") as file:
            async for chunk in request.stream():
                await file.write(chunk)
        record = await services.call_long(_keep, path, key, services)
    response.headers["Location"] = urls.batch(record.id)
    return _view(record, NOTHING, urls)  # it is kept: no error may have it sent again


@router.get("/{batch_id}", response_model=BatchView, responses=documented(404))
async def look(record: OwnBatch, services: ServicesOf, urls: UrlsOf) -> BatchView:
    """How far the batch is."""
    return _view(record, await _counts(record, services), urls)


@router.post("/{batch_id}/cancel", response_model=BatchView, responses=documented(404))
async def cancel(record: OwnBatch, services: ServicesOf, urls: UrlsOf) -> BatchView:
    """Cancel what is not finished, at once; what is, stays in the output."""
    if not record.is_done:
        await services.ask(services.batches.cancel(record.id))
    record = await services.ask(services.batches.get(record.id))
    return _view(record, await _counts(record, services), urls)


@router.get(
    "/{batch_id}/output", response_class=Response,
    responses=documented(404, 409) | {
        200: {"description": "A result or an error a line, in any order.",
              "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}},
    },
)  # fmt: skip
async def output(record: OwnBatch, services: ServicesOf) -> Response:
    """The results, when all are there."""
    if not record.is_done or record.failure is not None:
        raise WrongState(f"batch {record.id} has no output yet: its status says how far it is")
    storage = services.sync.storage
    found = await services.call_store(storage.head, output_of(record.id))
    if found is None:
        raise JobNotFound(f"the output of batch {record.id} has outlived CROSSMODAL_RETENTION_S")
    chunks = services.pieces(storage.stream(found.key, 0, found.size))
    return StreamingResponse(chunks, media_type=MEDIA_TYPE)


def _keep(path: Path, key: ApiKey, services: Services) -> HttpBatch:
    """Store the file, then have it run: so an accepted batch has all that it needs."""
    batch_id = new_job_id()
    checked = path.with_name("checked.jsonl")
    is_mixed = check_lines(path, checked, lambda k: is_visible(k, key.id, services.sync), key.id)
    most = services.settings.max_image_bytes
    file = BatchFile(checked, None, batch_id, most, services.sync.models, is_ours=False)
    record = HttpBatch(
        id=batch_id, owner=key.id, max_queued=key.max_queued if key.id else None, task=file.task,
        is_mixed=is_mixed, total=file.total, created_at=time.time(),
    )  # fmt: skip
    services.sync.storage.put_file(input_of(batch_id), checked, MEDIA_TYPE)
    try:
        services.sync.run(services.batches.open(record))
    except CrossmodalError:
        with suppress(CrossmodalError):
            services.sync.storage.delete(input_of(batch_id))
        raise
    return record


async def _counts(record: HttpBatch, services: Services) -> dict[str, int]:
    """How many of its lines have ended, and how."""
    if record.is_done:
        return {"completed": record.completed, "failed": record.failed}
    try:
        sent = batch_counts(await services.client.batch(record.id))
    except JobNotFound:  # nothing of it has been sent
        return NOTHING
    return {"completed": sent["completed"], "failed": sent["failed"]}


def _view(record: HttpBatch, counts: dict[str, int], urls: Urls) -> BatchView:
    status = "canceling" if record.is_canceled else "in_progress"
    if record.is_done:
        status = "failed" if record.failure else "completed"
    return BatchView(
        id=record.id, task=None if record.is_mixed else record.task.of_items,
        status=status,  # type: ignore[arg-type]
        request_counts={"total": record.total, **counts},
        created_at=record.created_at, failure=record.failure,
        status_url=urls.batch(record.id), output_url=urls.batch(record.id, "/output"),
        cancel_url=urls.batch(record.id, "/cancel"),
    )  # fmt: skip
