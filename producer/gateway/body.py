"""Reading of request bodies: JSON, or a form with a file, within the size limits."""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from typing import Any, Literal, TypeVar, get_args, get_origin

from anyio import to_thread
from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile

from crossmodal.errors import InvalidParams
from crossmodal.kinds.fields import NameOfModel
from crossmodal.kinds.registry import kinds
from crossmodal.settings import Settings
from crossmodal.unknown import check_fields, nearest
from crossmodal.vision.media import check_size
from producer.batches.jsonl import fault, is_crowded
from producer.gateway.problems import BadRequest, UnsupportedMediaType, described
from producer.gateway.requests import REQUESTS, WAYS, ByData, JobRequest

R = TypeVar("R", bound=BaseModel)
MAX_FIELD = 16_384  # bytes, of a form field that is not a file


def _ref(kind: type[BaseModel]) -> str:
    return f"#/components/schemas/{kind.__name__}"


def _form() -> dict[str, Any]:
    """Return the form's schema: one object for all kinds, as client generators need.

    A picture is the form's `file`, or comes in its own field as in JSON. Fields have no defaults:
    generated clients would send those of other kinds, too.
    """
    found: dict[str, list[Any]] = {"file": [{"type": "string", "format": "binary"}]}
    for kind in REQUESTS.values():
        schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        for name, of in schema["properties"].items():
            of.pop("default", None)
            found[name] = [*found.get(name, ()), *([] if of in found.get(name, ()) else [of])]
    found["task"] = [{"type": "string", "enum": list(REQUESTS)}]
    properties = {name: of[0] if len(of) == 1 else {"anyOf": of} for name, of in found.items()}
    return {
        "type": "object",
        "required": ["task"],
        "additionalProperties": True,
        "properties": properties,
    }


def _is_text(annotation: Any) -> bool:
    """Return whether all values of a type are strings."""
    if get_origin(annotation) is Literal:
        return all(isinstance(value, str) for value in get_args(annotation))
    return annotation is str or annotation == NameOfModel | None


PICTURES = {name: kind.picture for name, kind in kinds().items() if kind.picture is not None}
# Form fields that are plain text; all others are JSON.
_TEXTS = {"task", "webhook_url"} | {
    name
    for kind in kinds().values()
    for name, field in kind.fields.items()
    if _is_text(field.annotation)
}
_FIELDS = {name for kind in REQUESTS.values() for name in kind.model_fields}
OPENAPI: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [{"$ref": _ref(kind)} for kind in REQUESTS.values()],
                    "discriminator": {
                        "propertyName": "task",
                        "mapping": {name: _ref(kind) for name, kind in REQUESTS.items()},
                    },
                },
                "examples": {
                    name: {"value": {"task": name, **kind.example}}
                    for name, kind in kinds().items()
                },
            },
            "multipart/form-data": {"schema": _form()},
        },
    }
}


async def read_request(request: Request, settings: Settings) -> JobRequest:
    """Parse a submission. Raises `BadRequest`, `UnsupportedMediaType` or `InvalidParams`."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        return await _read_form(request, settings)
    if media_type == "application/json" or media_type.endswith("+json"):
        body = await whole(request)
        return await to_thread.run_sync(lambda: _checked(parse_json(body)))
    raise UnsupportedMediaType(
        f"the body is {media_type[:80]!r}: send application/json or multipart/form-data"
    )


async def whole(request: Request) -> bytes:
    """Return the body, without caching it in a request that may wait for a job."""
    return b"".join([part async for part in request.stream()])


def parse_json(body: bytes) -> Any:
    """Parse JSON. Raises `BadRequest`."""
    if is_crowded(body):  # would take seconds to parse; base64 adds no values
        raise BadRequest("the body has more JSON values than a request may have")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as e:
        raise BadRequest(f"the body {fault(e)}") from e


async def read_json(request: Request, model: type[R]) -> R:
    """Parse a JSON body. Raises `BadRequest`, `UnsupportedMediaType` or `InvalidParams`."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise UnsupportedMediaType(f"the body is {media_type[:80]!r}: send application/json")
    body = await whole(request)
    value = await to_thread.run_sync(parse_json, body)
    if not isinstance(value, dict):
        raise InvalidParams("the body is not a JSON object")
    return built(model, value)


def json_of(model: type[BaseModel]) -> Any:
    """Return a FastAPI dependency that reads the body by `read_json`."""

    async def read(request: Request) -> BaseModel:
        return await read_json(request, model)

    return Depends(read)


def taking(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI entry of a JSON body; `app` adds the schema it refers to."""
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _ref(model)}, "example": example}},
        }
    }


@contextmanager
def named_as(theirs: Mapping[str, str], given: Collection[str]) -> Iterator[None]:
    """Report an invalid field by its API's name in `theirs`, unless it was `given` by ours."""
    try:
        yield
    except InvalidParams as e:
        name = theirs.get(e.field or "")
        if name is None or e.field in given:
            raise
        raise InvalidParams(f"{name}: {e}", name) from e


def check_once(wanted: BaseModel, theirs: Mapping[str, str]) -> None:
    """Raise `InvalidParams` for a field given by our name and by its API's name in `theirs`."""
    for ours in (wanted.model_extra or {}).keys() & theirs.keys():
        if getattr(wanted, name := theirs[ours]) not in (None, "", "auto"):
            raise InvalidParams(f"{ours}: {name} sets the same param: give only one of them", ours)


async def _read_form(request: Request, settings: Settings) -> JobRequest:
    if _charset(request) not in ("", "utf-8"):
        raise UnsupportedMediaType("the form's charset is not utf-8")
    fields: dict[str, Any] = {}
    picture: bytes | None = None
    async with request.form(max_files=1, max_fields=20, max_part_size=MAX_FIELD) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if name != "file":
                    raise InvalidParams(f"{name[:100]}: a form has its picture in the field 'file'")
                check_size(value.size or 0, settings.max_image_bytes)
                picture = await value.read()
            else:
                fields[name] = value if name in _TEXTS else _value(name, value)
    if picture is None:
        return _checked(fields)
    return _with_file(fields, picture)


def _with_file(fields: dict[str, Any], picture: bytes) -> JobRequest:
    kind = _kind_of(fields)
    field = PICTURES.get(fields["task"])
    if field is None:
        raise InvalidParams(f"file: only {' and '.join(PICTURES)} takes a picture")
    if field in fields:
        raise InvalidParams(
            f"{field}: the form has its picture in the field 'file': give only one of them"
        )
    # `model_construct` skips validation, which would decode the bytes as base64.
    wanted = built(kind, fields | {field: {"key": "file"}})
    return wanted.model_copy(update={field: ByData.model_construct(data=picture)})


def _charset(request: Request) -> str:
    message = Message()
    message["content-type"] = request.headers.get("content-type", "")
    return str(message.get_param("charset") or "").lower()


def _value(name: str, text: str) -> Any:
    """Parse a form field as JSON; a field that only a model knows may be plain text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        if name not in _FIELDS:
            return text
        raise InvalidParams(f"{name[:100]}: {text[:80]!r} {fault(e)}") from e


def _checked(value: Any) -> JobRequest:
    if not isinstance(value, dict):
        raise InvalidParams("the body is not a JSON object with the fields of a job")
    return built(_kind_of(value), value)


def _kind_of(value: dict[str, Any]) -> type[JobRequest]:
    task = value.get("task")
    kind = REQUESTS.get(task) if isinstance(task, str) else None
    if kind is None:
        raise InvalidParams(_no_task(value))
    return kind


def built(kind: type[R], value: dict[str, Any]) -> R:
    """Validate fields as a `kind`. Raises `InvalidParams`."""
    try:
        return kind.model_validate(value)
    except ValidationError as e:
        errors = [_placed(error) for error in e.errors()]
        first = next((str(one["loc"][0]) for one in errors if one["loc"]), None)
        raise InvalidParams(described(errors), first) from e


def _no_task(value: dict[str, Any]) -> str:
    known = " or ".join(REQUESTS)
    if "task" not in value:
        fields = dict.fromkeys(name for kind in REQUESTS.values() for name in kind.model_fields)
        check_fields(value, fields, "body")
        return f"task: missing: give {known}"
    task = str(value["task"])[:80]
    near = nearest(task, REQUESTS)
    return f"task: {task!r} is not {known}" + (f": did you mean {near!r}?" if near else "")


def _placed(error: Any) -> dict[str, Any]:
    """Locate an error as its sender wrote it: `image.data`, without pydantic's union tag."""
    where = error["loc"]
    if len(where) > 1 and where[0] in PICTURES.values() and where[1] in WAYS:
        where = (where[0], *where[2:])
    return {**error, "loc": where}
