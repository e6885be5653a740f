"""The body of a submission: JSON, or a form with a file, read no further than is allowed."""

import asyncio
import json
from email.message import Message
from typing import Any

from fastapi import Request
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import UploadFile

from crossmodal.errors import InvalidParams
from crossmodal.settings import Settings
from crossmodal.vision.media import check_size
from producer.gateway.problems import BadRequest, UnsupportedMediaType, described
from producer.gateway.shapes import Img2TxtRequest, JobRequest, Txt2ImgRequest
from producer.jsonl import is_crowded

MAX_FIELD = 16_384  # bytes of a form's field that is no file
_REQUEST: TypeAdapter[JobRequest] = TypeAdapter(JobRequest)
_TEXTS = ("task", "prompt", "webhook_url")

DRAW = {"task": "txt2img", "prompt": "a large red circle on a white background", "seed": 7}
CAPTION = {"task": "img2txt", "image": {"key": "inputs/9f/9f86d0…"}}
FORM = {
    "type": "object", "required": ["task", "file"],
    "properties": {
        "task": {"type": "string", "enum": ["img2txt"]},
        "file": {"type": "string", "format": "binary"},
        "count": {"type": "integer", "minimum": 1, "maximum": 5},
        "beam_width": {"type": "integer", "minimum": 1, "maximum": 10},
        "max_words": {"type": "integer", "minimum": 1, "maximum": 64},
    },
}  # fmt: skip
OPENAPI: dict[str, Any] = {
    "requestBody": {"required": True, "content": {
        "application/json": {
            "schema": {
                "oneOf": [{"$ref": "#/components/schemas/Txt2ImgRequest"},
                          {"$ref": "#/components/schemas/Img2TxtRequest"}],
                "discriminator": {"propertyName": "task", "mapping": {
                    "txt2img": "#/components/schemas/Txt2ImgRequest",
                    "img2txt": "#/components/schemas/Img2TxtRequest",
                }},
            },
            "examples": {"draw": {"value": DRAW}, "caption": {"value": CAPTION}},
        },
        "multipart/form-data": {"schema": FORM},
    }},
}  # fmt: skip


async def read_request(request: Request, settings: Settings) -> JobRequest:
    """What is asked for. Raises `BadRequest`, `UnsupportedMediaType` or `InvalidParams`."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        return await _read_form(request, settings)
    if media_type == "application/json" or media_type.endswith("+json"):
        body = await request.body()
        return await asyncio.to_thread(lambda: _checked(parse_json(body)))
    raise UnsupportedMediaType(
        f"the body is {media_type[:80]!r}: send application/json or multipart/form-data"
    )


def parse_json(body: bytes) -> Any:
    """What the bytes say. Raises `BadRequest`."""
    if is_crowded(body):  # which takes seconds to parse; a picture's base64 has none of these
        raise BadRequest("the body has more values than any request has")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as e:
        raise BadRequest(f"the body is no JSON: {e}") from e


async def _read_form(request: Request, settings: Settings) -> JobRequest:
    if _charset(request) not in ("", "utf-8"):
        raise UnsupportedMediaType("the form is of another charset than utf-8")
    fields: dict[str, Any] = {}
    picture: bytes | None = None
    async with request.form(max_files=1, max_fields=20, max_part_size=MAX_FIELD) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                check_size(value.size or 0, settings.max_image_bytes)
                picture = await value.read()
            else:
                fields[name] = value if name in _TEXTS else _value(name, value)
    if picture is None:
        return _checked(fields)
    # Its base64 was never wanted: the model takes bytes that need no decoding.
    wanted = _checked(fields | {"image": {"key": "file"}})
    if not isinstance(wanted, Img2TxtRequest):
        raise InvalidParams("file: only img2txt takes a picture")
    return FileRequest(**wanted.model_dump(exclude={"image"}), image=wanted.image, data=picture)


def _charset(request: Request) -> str:
    message = Message()
    message["content-type"] = request.headers.get("content-type", "")
    return str(message.get_param("charset") or "").lower()


class FileRequest(Img2TxtRequest):
    """A request whose picture came as a file."""

    data: bytes


def _value(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        raise InvalidParams(f"{name}: {text[:80]!r} is no JSON value") from e


def _checked(value: Any) -> Txt2ImgRequest | Img2TxtRequest:
    try:
        return _REQUEST.validate_python(value)
    except ValidationError as e:
        raise InvalidParams(described(e.errors())) from e
