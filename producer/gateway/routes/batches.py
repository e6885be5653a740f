"""`/v1/batches`: a file of requests in, a file of results out."""

from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from crossmodal.errors import JobNotFound, WrongState
from crossmodal.jobs.http_batches import MEDIA_TYPE, HttpBatch, output_of
from crossmodal.scratch import scratch_folder
from producer.gateway.batch_records import NOTHING, batch_of, counts_of, keep
from producer.gateway.body import read_json
from producer.gateway.caller import Caller, UrlsOf
from producer.gateway.openai import batches as openai
from producer.gateway.openai.errors import TAG, documented_besides
from producer.gateway.openai.lines import translator
from producer.gateway.problems import UnsupportedMediaType, linked
from producer.gateway.responses import BatchView, Urls
from producer.gateway.services import Services, ServicesOf

READ_AS = (MEDIA_TYPE, "application/x-ndjson", "application/octet-stream", "text/plain")
LINES = (
    '{"custom_id": "a", "url": "/v1/txt2img", "body": {"prompt": "a red circle"}}\n'
    '{"custom_id": "b", "url": "/v1/img2txt", "body": {"image": {"key": "inputs/9f/9f86d0…"}}}\n'
)

router = APIRouter(prefix="/v1/batches", tags=["batches"])


async def own_batch(
    request: Request, batch_id: str, key: Caller, services: ServicesOf
) -> HttpBatch:
    """Return the caller's batch job; an OpenAI id, `batch_…`, selects OpenAI's format."""
    if batch_id.startswith(openai.PREFIX):
        request.state.dialect = TAG
    return await batch_of(batch_id.removeprefix(openai.PREFIX), key, services)


OwnBatch = Annotated[HttpBatch, Depends(own_batch)]


@router.post(
    "",
    status_code=202,
    response_model=BatchView | openai.OpenAiBatch,
    responses=documented_besides(404, 413, 415)
    | {
        202: {
            "description": "The batch job is kept: it will be run to its end.",
            "links": linked(
                "batch_id",
                {
                    "look": "~1v1~1batches~1{batch_id}/get",
                    "output": "~1v1~1batches~1{batch_id}~1output/get",
                    "cancel": "~1v1~1batches~1{batch_id}~1cancel/post",
                },
            ),
        }
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                MEDIA_TYPE: {"schema": {"type": "string"}, "example": LINES},
                "application/json": {"schema": {"$ref": "#/components/schemas/BatchRequest"}},
            },
        }
    },
)
async def create(
    request: Request, response: Response, key: Caller, services: ServicesOf, urls: UrlsOf
) -> Any:
    """Submit a file of requests, one a line, in the format of the OpenAI Batch API.

    A line has a `url`, /v1/txt2img or /v1/img2txt, a `body` with the fields of such a job, and
    optionally a `custom_id`, which names its result. A file may mix both kinds. A line with an
    unknown field fails alone. A JSON body is that of OpenAI's API: it names a file of /v1/files,
    and its answer and errors are in OpenAI's format.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":  # as a client of OpenAI's API sends it
        request.state.dialect = TAG
        wanted = await read_json(request, openai.BatchRequest)
        return await openai.create(wanted, key, services)
    if kind not in READ_AS:
        raise UnsupportedMediaType(f"the body is {kind[:80]!r}: send {MEDIA_TYPE}")
    await services.ask(services.batches.check_room(key.id))
    with scratch_folder("upload") as folder:
        path = folder / "input.jsonl"
        async with await anyio.open_file(path, "wb") as file:
            async for chunk in request.stream():
                await file.write(chunk)
        record = await services.in_turns(keep(path, key, services, translator(services)))
    response.headers["Location"] = urls.batch(record.id)
    return _view(record, NOTHING, urls)  # it is accepted: an error would have it sent again


@router.get(
    "/{batch_id}", response_model=BatchView | openai.OpenAiBatch, responses=documented_besides(404)
)
async def look(request: Request, record: OwnBatch, services: ServicesOf, urls: UrlsOf) -> Any:
    """Return the batch job's status; for an OpenAI id, `batch_…`, in OpenAI's format."""
    return await _shown(request, record, services, urls)


@router.post(
    "/{batch_id}/cancel",
    response_model=BatchView | openai.OpenAiBatch,
    responses=documented_besides(404),
)
async def cancel(request: Request, record: OwnBatch, services: ServicesOf, urls: UrlsOf) -> Any:
    """Cancel the unfinished lines at once; results of the others stay in the output."""
    if not record.is_done:
        await services.ask(services.batches.cancel(record.id))
    record = await services.ask(services.batches.get(record.id))
    return await _shown(request, record, services, urls)


@router.get(
    "/{batch_id}/output",
    response_class=Response,
    responses=documented_besides(404, 409)
    | {
        200: {
            "description": "One result or error per line, in any order.",
            "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
        }
    },
)
async def output(record: OwnBatch, services: ServicesOf) -> Response:
    """Return the results, once all lines have ended."""
    if not record.is_done or record.failure is not None:
        raise WrongState(f"batch {record.id} has no output yet: its status says how far it is")
    storage = services.sync.storage
    found = await services.call_store(storage.head, output_of(record.id))
    if found is None:
        raise JobNotFound(f"the output of batch {record.id} has outlived CROSSMODAL_RETENTION_S")
    chunks = services.pieces(storage.stream(found.key, 0, found.size))
    return StreamingResponse(chunks, media_type=MEDIA_TYPE)


async def _shown(
    request: Request, record: HttpBatch, services: Services, urls: Urls
) -> BatchView | openai.OpenAiBatch:
    if getattr(request.state, "dialect", None) == TAG:
        return await openai.view(record, services)
    return _view(record, await counts_of(record, services), urls)


def _view(record: HttpBatch, counts: dict[str, int], urls: Urls) -> BatchView:
    status = "canceling" if record.is_canceled else "in_progress"
    if record.is_done:
        status = "failed" if record.failure else "completed"
    return BatchView(
        id=record.id,
        task=None if record.is_mixed else record.task.of_items,
        status=status,  # type: ignore[arg-type]
        request_counts={"total": record.total, **counts},
        created_at=record.created_at,
        failure=record.failure,
        status_url=urls.batch(record.id),
        output_url=urls.batch(record.id, "/output"),
        cancel_url=urls.batch(record.id, "/cancel"),
    )
