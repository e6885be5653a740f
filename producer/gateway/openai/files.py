"""`/v1/files` of OpenAI's API: the input and output files of batch jobs.

A batch job's output and error files are generated from its results as they are read.
"""

import time
from collections.abc import Iterator
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile

from crossmodal.errors import InvalidParams, JobNotFound, NotSupported
from crossmodal.jobs.files import File, bytes_of_file
from crossmodal.jobs.http_batches import MEDIA_TYPE, HttpBatch, output_of
from crossmodal.jobs.names import new_job_id
from crossmodal.storage import Storage
from crossmodal.unknown import check_fields
from producer.gateway.batch_records import batch_of
from producer.gateway.caller import Caller, ListInTurn, UrlsOf
from producer.gateway.openai.errors import TAG, documented
from producer.gateway.openai.lines import theirs, wants_urls
from producer.gateway.ownership import may_see, missing
from producer.gateway.problems import UnsupportedMediaType
from producer.gateway.services import Services, ServicesOf

PREFIX = "file-"
OUTPUT, ERRORS = "-output", "-errors"
PURPOSE = "batch"
MAX_PAGE = 10_000
MAX_READ = 1_000  # max records a page, whatever the `limit`; then `has_more` is true

router = APIRouter(prefix="/v1/files", tags=[TAG])


class FileView(BaseModel):
    """A file. The `bytes` of a batch job's output do not count the pictures put into it."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"] = "processed"
    expires_at: int | None = None


class FilePage(BaseModel):
    """A page of files."""

    object: Literal["list"] = "list"
    data: list[FileView]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(BaseModel):
    """A deleted file."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class FileQuery(BaseModel):
    """The filter, page and order of a list of files."""

    purpose: str | None = Field(default=None, max_length=64)
    after: str | None = Field(default=None, max_length=200)
    limit: int = Field(default=MAX_PAGE, ge=1, le=MAX_PAGE)
    order: Literal["asc", "desc"] = "desc"


@router.post(
    "",
    response_model=FileView,
    responses=documented(),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file", "purpose"],
                        "properties": {
                            "file": {"type": "string", "format": "binary"},
                            "purpose": {"type": "string", "enum": [PURPOSE]},
                        },
                    }
                }
            },
        }
    },
)
async def upload(request: Request, key: Caller, services: ServicesOf) -> FileView:
    """Upload a file of requests, one a line, for a batch job."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise UnsupportedMediaType(f"the body is {kind[:80]!r}: send multipart/form-data")
    async with request.form(max_files=1, max_fields=5) as form:
        check_fields(form, ("file", "purpose"), "form")
        sent = form.get("file")
        if not isinstance(sent, UploadFile):
            raise InvalidParams("file: missing: send the requests as a file", "file")
        if form.get("purpose") != PURPOSE:
            raise InvalidParams(f"purpose: only {PURPOSE} is served", "purpose")
        file = File(
            id=new_job_id(),
            owner=key.id,
            name=(sent.filename or "file.jsonl")[:255],
            size=sent.size or 0,
            created_at=time.time(),
        )
        put = services.sync.storage.put_file
        await services.call_store(put, bytes_of_file(file.id), sent.file, MEDIA_TYPE)
    await services.ask(services.files.keep(file))
    return _view(file, services)


async def own_file(file_id: str, key: Caller, services: ServicesOf) -> FileView:
    """Return the caller's file, uploaded or a batch job's output. Raises `JobNotFound`."""
    name = file_id.removeprefix(PREFIX)
    for end in (OUTPUT, ERRORS):
        if name.endswith(end):
            record = await batch_of(name.removesuffix(end), key, services)
            found = {one.id: one for one in await outputs(record, services)}
            if file_id in found:
                return found[file_id]
    return _view(await file_of(file_id, key.id, services), services)


OwnFile = Annotated[FileView, Depends(own_file)]


@router.get("", response_model=FilePage, responses=documented(), dependencies=[ListInTurn])
async def list_files(
    key: Caller, services: ServicesOf, query: Annotated[FileQuery, Query()]
) -> FilePage:
    """List the caller's uploaded files; batch jobs name their output files."""
    ids = await services.ask(services.files.of(key.id)) if query.purpose in (None, PURPOSE) else []
    ascending, after = query.order == "asc", (query.after or "").removeprefix(PREFIX)
    limit = min(query.limit, MAX_READ)
    names, more = page(ids[::-1] if ascending else ids, after, limit, ascending=ascending)
    data = [_view(file, services) for file in await services.ask(services.files.some(names))]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return FilePage(data=data, first_id=first, last_id=last, has_more=more)


@router.get("/{file_id}", response_model=FileView, responses=documented())
async def look(file: OwnFile) -> FileView:
    """Return a file's record."""
    return file


@router.get(
    "/{file_id}/content",
    response_class=Response,
    responses=documented()
    | {200: {"description": "The lines.", "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
async def content(file: OwnFile, key: Caller, services: ServicesOf, urls: UrlsOf) -> Response:
    """Return a file's content; a batch job's output has its pictures."""
    name, storage = file.id.removeprefix(PREFIX), services.sync.storage
    if file.purpose == PURPOSE:
        pieces = storage.stream(bytes_of_file(name), 0, file.bytes)
        return StreamingResponse(services.pieces(pieces), media_type=MEDIA_TYPE)
    failed = name.endswith(ERRORS)
    record = await batch_of(name.removesuffix(ERRORS).removesuffix(OUTPUT), key, services)
    as_urls = await services.call_store(_as_urls, storage, record)

    def made() -> Iterator[bytes]:
        for line in _lines(storage, output_of(record.id)):
            yield from theirs(
                line, services.sync, urls, as_urls, int(record.created_at), failed=failed
            )

    return StreamingResponse(services.pieces(made()), media_type=MEDIA_TYPE)


@router.delete("/{file_id}", response_model=FileDeleted, responses=documented(501))
async def delete(file: OwnFile, key: Caller, services: ServicesOf) -> FileDeleted:
    """Delete a file; a batch job that was made of it goes on."""
    if file.purpose != PURPOSE:
        raise NotSupported(
            "the output of a batch cannot be deleted: it expires after CROSSMODAL_RETENTION_S"
        )
    record = await file_of(file.id, key.id, services)
    await services.call_store(services.sync.storage.delete, bytes_of_file(record.id))
    await services.ask(services.files.forget(record))
    return FileDeleted(id=file.id)


async def file_of(file_id: str, owner: str, services: Services) -> File:
    """Return a caller's uploaded file. Raises `JobNotFound`."""
    try:
        found = await services.ask(services.files.get(file_id.removeprefix(PREFIX)))
    except JobNotFound:
        found = None
    if found is None or not may_see(owner, found.owner):
        raise JobNotFound(missing("file", file_id, owner))
    return found


async def outputs(record: HttpBatch, services: Services) -> list[FileView]:
    """Return a batch job's output files: one of results, one of errors, if not empty."""
    if not record.is_done or record.failure is not None:
        return []
    stored = await services.call_store(services.sync.storage.head, output_of(record.id))
    ends = [end for end, count in ((OUTPUT, record.completed), (ERRORS, record.failed)) if count]
    return (
        []
        if stored is None
        else [
            FileView(
                id=f"{PREFIX}{record.id}{end}",
                bytes=stored.size,
                filename=f"{record.id}{end}.jsonl",
                created_at=int(record.ended_at or record.created_at),
                purpose="batch_output",
            )
            for end in ends
        ]
    )


def page(
    ids: list[str], after: str, limit: int, *, ascending: bool = False
) -> tuple[list[str], bool]:
    """Return the page of a list after one of its ids, and whether there are more.

    If that id is gone, the page begins where it was: ids sort by time. Raises `InvalidParams` if
    `after` is not an id.
    """
    if after in ids:
        ids = ids[ids.index(after) + 1 :]
    elif after:
        try:
            UUID(after)
        except ValueError as e:
            raise InvalidParams(
                f"after: {after!r} is not an id: give the last_id of the page before", "after"
            ) from e
        ids = [one for one in ids if (one > after) is ascending]
    return ids[:limit], len(ids) > limit


def _view(file: File, services: Services) -> FileView:
    return FileView(
        id=PREFIX + file.id,
        bytes=file.size,
        created_at=int(file.created_at),
        filename=file.name,
        purpose="batch",
        expires_at=int(file.created_at + services.settings.retention_s),
    )


def _lines(storage: Storage, key: str) -> Iterator[bytes]:
    """Yield the lines of a stored file, read piece by piece."""
    found, rest = storage.head(key), b""
    for piece in storage.stream(key, 0, found.size) if found is not None else ():
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _as_urls(storage: Storage, record: HttpBatch) -> frozenset[str]:
    """Return the lines of a batch job that request URLs; none if its file is gone."""
    if record.source is None:
        return frozenset()
    return wants_urls(_lines(storage, bytes_of_file(record.source.file.removeprefix(PREFIX))))
