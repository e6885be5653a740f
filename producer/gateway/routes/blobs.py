"""`/v1/blobs` and `/v1/uploads`: download from the object store, and upload to it."""

import re
from pathlib import PurePosixPath
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from pydantic import ValidationError

from crossmodal.errors import InvalidParams, WrongState
from crossmodal.jobs.names import PREVIEWS, input_key
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.images import FORMATS
from crossmodal.storage.store import Method
from crossmodal.vision.media import media_type
from producer.gateway.body import parse_json, whole
from producer.gateway.caller import Caller, UrlsOf
from producer.gateway.ownership import size_of
from producer.gateway.problems import RangeNotSatisfiable, described, documented
from producer.gateway.requests import BlobQuery, UploadRequest
from producer.gateway.responses import SignedUpload, UploadView
from producer.gateway.services import Services, ServicesOf
from producer.http.manners import IS_HEAD

SIGNED_S = 600.0
TYPES = {f".{name}": f"image/{name}" for name in FORMATS} | {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
}
BINARY = "application/octet-stream"
HEAD = 64  # first bytes, which identify a picture's type
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")

router = APIRouter(tags=["blobs"])
ANY_BODY = {"type": "string", "format": "binary"}
CONTENT = {
    BINARY: {"schema": ANY_BODY},
    "image/*": {"schema": ANY_BODY},
    "application/json": {},
    "application/jsonl": {},
}


@router.get(
    "/v1/blobs/{key:path}",
    response_class=Response,
    responses=documented(404, 416)
    | {
        200: {"description": "The bytes.", "content": CONTENT},
        206: {"description": "The requested range of the bytes.", "content": CONTENT},
        304: {"description": "The caller has these bytes already."},
        307: {"description": "A redirect to a signed URL of the object store."},
    },
)
async def blob(
    request: Request,
    key: str,
    who: Caller,
    services: ServicesOf,
    query: Annotated[BlobQuery, Query()],
    range_: Annotated[str | None, Header(alias="Range", max_length=100)] = None,
    if_none_match: Annotated[str | None, Header(max_length=200)] = None,
    if_range: Annotated[str | None, Header(max_length=200)] = None,
) -> Response:
    """Return a picture or a result: a redirect to a signed URL of the store, or the bytes."""
    size = await services.call_store(size_of, key, who.id, services.sync)
    method: Method = "HEAD" if IS_HEAD in request.scope else "GET"  # a URL is signed for one method
    signed = await services.call_store(_sign, key, services, method) if query.redirect else None
    if signed is not None:
        return RedirectResponse(signed, 307, {"Cache-Control": "no-store"})
    if key.startswith(f"{PREVIEWS}/"):
        return await _preview(key, services)
    tag = (
        f'"{size:x}-{quote(PurePosixPath(key).parent.name)}-{quote(PurePosixPath(key).name[:64])}"'
    )
    headers = {"ETag": tag, "Accept-Ranges": "bytes", "Cache-Control": "private, max-age=3600"}
    if if_none_match is not None and tag in if_none_match:
        return Response(status_code=304, headers=headers)
    is_same = if_range in (None, tag)  # else the whole current blob is sent
    found = _range(range_, size) if is_same else None
    first, last = found or (0, size - 1)
    headers["Content-Length"] = str(last - first + 1)
    if found:
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    kind = await services.call_store(_type_of, key, services)
    chunks = services.pieces(services.sync.storage.stream(key, first, last + 1))
    return StreamingResponse(chunks, 206 if found else 200, headers, media_type=kind)


async def _preview(key: str, services: Services) -> Response:
    """Return a preview, read at once and not cached: the next one overwrites its key."""
    data = await services.call_store(services.sync.storage.get, BlobRef(key=key))
    return Response(data, 200, {"Cache-Control": "no-store"}, "image/jpeg")


@router.post(
    "/v1/uploads",
    status_code=201,
    response_model=UploadView | SignedUpload,
    responses=documented(409, 413),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "image/*": {"schema": ANY_BODY},
                "application/json": {"schema": {"$ref": "#/components/schemas/UploadRequest"}},
            },
        }
    },
)
async def upload(request: Request, key: Caller, services: ServicesOf, urls: UrlsOf) -> Any:
    """Store a picture for jobs to name; for its digest as JSON, return a URL to PUT it to."""
    body = await whole(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return await services.call_store(_signed, body, key.id, services)
    ref = await services.call_store(services.sync.upload, body, owner=key.id)
    return UploadView(**ref.model_dump(), url=urls.blob(ref.key))


def _signed(body: bytes, owner: str, services: Services) -> SignedUpload:
    try:
        wanted = UploadRequest.model_validate(parse_json(body))
    except ValidationError as e:
        raise InvalidParams(described(e.errors())) from e
    key = input_key(wanted.sha256, owner)
    url = _sign(key, services, "PUT")
    if url is None:
        raise WrongState("this gateway cannot sign URLs of its object store: send the bytes here")
    return SignedUpload(key=key, put_url=url, expires_in_s=SIGNED_S)


def _sign(key: str, services: Services, method: Method) -> str | None:
    """Return a signed URL; None if the store is a folder, or callers cannot reach it."""
    if not services.settings.signed_urls:
        return None
    return services.sync.storage.sign(key, SIGNED_S, method)


def _range(text: str | None, size: int) -> tuple[int, int] | None:
    """Return a Range header's first and last byte; None for all, or for another form.

    Raises `RangeNotSatisfiable` (RFC 9110, section 14).
    """
    found = _RANGE.fullmatch(text or "")
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        begin, end = max(0, size - int(last)), size - 1
    else:
        begin, end = int(first), min(int(last or size), size - 1)
    if first and last and int(first) > int(last):
        return None
    if begin > end:
        raise RangeNotSatisfiable(f"{text} lies outside the {size} bytes of the blob")
    return begin, end


def _type_of(key: str, services: Services) -> str:
    """Return the type by extension, or by an upload's first bytes; never a web page's."""
    known = TYPES.get(PurePosixPath(key).suffix)
    if known is not None:
        return known
    head = b"".join(services.sync.storage.stream(key, 0, HEAD))
    try:
        return media_type(head)
    except InvalidParams:
        return BINARY
