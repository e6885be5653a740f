"""`/v1/images` of OpenAI's API: pictures for a prompt, in the response."""

import base64
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from crossmodal.errors import CrossmodalError, InvalidParams, NotSupported
from crossmodal.jobs.record import ImageRef, Progress
from crossmodal.kinds.base import ItemParams
from crossmodal.kinds.schema import Schema, properties_of
from crossmodal.kinds.txt2img import TXT2IMG
from producer.gateway import attached
from producer.gateway.body import check_once, json_of, named_as, taking
from producer.gateway.caller import Caller, UrlsOf, origin_of
from producer.gateway.openai.errors import TAG, body_of, documented
from producer.gateway.openai.models import MODELS_S, model_named, schema_of
from producer.gateway.openai.routes import answering
from producer.gateway.pictures import base64_of, preview_of
from producer.gateway.problems import fault_of
from producer.gateway.services import Services, ServicesOf
from producer.gateway.waiting import KEEPALIVE
from producer.handle import result_of

MAX_PARTIAL = 3
_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
_DALL_E = re.compile(r"dall-e-\d")
MAYBE = ("quality", "style", "background")  # params that a model may have
AS_USUAL = {"auto", "standard", "opaque"}  # values that mean the default
OURS = {
    "count": "n",
    "format": "output_format",
    "quality": "output_compression",
    "width": "size",
    "height": "size",
}

router = APIRouter(tags=[TAG])


class ImagesRequest(BaseModel):
    """A request for pictures. Other fields are params of the model, as `seed` and `steps`.

    `quality`, `style` and `background` are for models that have such a param; others ignore them,
    with a warning. `moderation`, `user` and `safety_identifier` are accepted and ignored.
    """

    model_config = ConfigDict(extra="allow")

    prompt: Any = Field(json_schema_extra={"type": "string"}, description="What to draw.")
    model: str | None = Field(
        default=None,
        max_length=64,
        description="A model's name or alias; OpenAI's own names and no name are the default one.",
    )
    n: int | None = Field(default=None, ge=1, description="How many pictures.")
    size: str | None = Field(
        default=None,
        max_length=11,
        description="WxH or auto. A model of a fixed size ignores it, with a warning.",
    )
    response_format: Literal["b64_json", "url"] | None = None
    output_format: Literal["png", "webp", "jpeg"] | None = None
    output_compression: int | None = Field(
        default=None, ge=0, le=100, description="The quality of webp and jpeg."
    )
    stream: bool | None = None
    partial_images: int | None = Field(default=None, ge=0, le=MAX_PARTIAL)
    quality: JsonValue = None
    style: JsonValue = None
    background: JsonValue = None
    moderation: JsonValue = None
    user: JsonValue = None
    safety_identifier: JsonValue = None


class ImageData(BaseModel):
    """A picture in base64, or its URL, which the same API key may fetch."""

    b64_json: str | None = None
    url: str | None = None


class Tokens(BaseModel):
    """Token counts: always zero, for clients that read them."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_tokens_details: dict[str, int] = {"text_tokens": 0, "image_tokens": 0}


class ImagesResponse(BaseModel):
    """Pictures, and the job that has made them."""

    created: int
    data: list[ImageData]
    size: str
    output_format: str
    usage: Tokens = Tokens()
    job: str
    model: str
    seed: int | None
    warnings: list[str]


EXAMPLE = {"model": "gpt-image-1", "prompt": "a red circle", "n": 1, "seed": 7}
SCHEMA = taking(ImagesRequest, EXAMPLE)
STREAMED = "The pictures; or, with `stream`, events, of which the last have them."


@answering(router, "/images/generations", ImagesResponse, STREAMED, SCHEMA)
async def generate(
    request: Request,
    key: Caller,
    services: ServicesOf,
    urls: UrlsOf,
    wanted: Annotated[ImagesRequest, json_of(ImagesRequest)],
) -> Any:
    """Draw pictures and return them. The job is canceled if the caller disconnects."""
    params, warnings = await _params_of(wanted, services)
    job_id = await attached.submit(params, origin_of(key, urls, None, ()), services, request)
    if wanted.stream:
        events = _events(job_id, wanted.partial_images or 0, warnings, services)
        return StreamingResponse(events, media_type="text/event-stream")
    job = await attached.ended(job_id, services, request)
    result = result_of(job)
    forms = forms_of(wanted)
    pictures = [
        ImageData(
            url=urls.blob(image.key) if "url" in forms else None,
            b64_json=await base64_of(image, services) if "b64_json" in forms else None,
        )
        for image in result.images
    ]
    return ImagesResponse(
        created=round(job.created_at),
        data=pictures,
        size=_size(result.images[0]),
        output_format=_format(result.images[0]),
        job=job.id,
        model=result.model,
        seed=result.seed,
        warnings=[*warnings, *result.warnings],
    )


@router.post(
    "/v1/images/edits", responses=documented(501), status_code=501, response_class=Response
)
async def edit(key: Caller) -> Response:
    """Edit a picture: not supported by any model here."""
    raise NotSupported("editing pictures is not supported: /v1/images/generations draws new ones")


@router.post(
    "/v1/images/variations", responses=documented(501), status_code=501, response_class=Response
)
async def vary(key: Caller) -> Response:
    """Vary a picture: not supported by any model here."""
    raise NotSupported("varying pictures is not supported: /v1/images/generations draws new ones")


async def _params_of(wanted: ImagesRequest, services: Services) -> tuple[ItemParams, list[str]]:
    """Return the job's params, and warnings of ignored fields. Raises `InvalidParams`."""
    known = await services.client.models(max_age_s=MODELS_S)
    model = model_named(wanted.model, TXT2IMG, known)
    fields, warnings = translated(wanted, schema_of(model, TXT2IMG, known))
    fields |= {} if model is None else {"model": model}
    checked = services.calls.checked(TXT2IMG, fields, "body", ImagesRequest.model_fields)
    with named_as(OURS, wanted.model_extra or ()):
        return await services.ask(checked), warnings


def translated(wanted: ImagesRequest, schema: Schema | None) -> tuple[dict[str, Any], list[str]]:
    """Return a job's fields for a model with this schema, and warnings of ignored ones.

    Raises `InvalidParams` for an invalid size, and for a field given under two names.
    """
    declared = properties_of(schema)
    check_once(wanted, OURS)
    given = {
        "count": wanted.n,
        "format": wanted.output_format,
        "quality": wanted.output_compression,
        "prompt": wanted.prompt,
    }
    fields = (wanted.model_extra or {}) | {n: v for n, v in given.items() if v is not None}
    warnings = _of_answers(wanted)
    if (side := _side(wanted.size)) is not None:
        if declared.keys() >= {"width", "height"}:
            fields |= {"width": side[0], "height": side[1]}
        else:
            warnings.append("size: the model draws in one size only")
    for name in MAYBE:
        value = getattr(wanted, name)
        if name in declared.keys() - TXT2IMG.fields.keys():
            fields |= {} if value is None else {name: value}
        elif value is not None and not (isinstance(value, str) and value in AS_USUAL):
            warnings.append(f"{name}: the model has no such param")
    return fields, warnings


def _of_answers(wanted: ImagesRequest) -> list[str]:
    """Return warnings of options that a stream ignores, or that need one."""
    if wanted.stream and wanted.response_format == "url":
        return ["response_format: streams have the pictures themselves, not URLs"]
    if wanted.partial_images and not wanted.stream:
        return ["partial_images: only streams have them"]
    return []


def forms_of(wanted: ImagesRequest) -> set[str]:
    """Return the response's picture fields; clients of DALL·E expect URLs without asking
    for them."""
    if wanted.response_format is not None:
        return {wanted.response_format}
    return {"b64_json", "url"} if _DALL_E.fullmatch(wanted.model or "") else {"b64_json"}


def _side(size: str | None) -> tuple[int, int] | None:
    """Return width and height in pixels; None for the model's default."""
    if size in (None, "", "auto"):
        return None
    found = _SIZE.fullmatch(size or "")
    if found is None:
        raise InvalidParams(
            f"size: {size!r} is not a size: give WIDTHxHEIGHT, such as 512x512, or auto", "size"
        )
    return int(found[1]), int(found[2])


async def _events(
    job_id: str, partial_images: int, warnings: list[str], services: Services
) -> AsyncIterator[bytes]:
    """Yield up to `partial_images` previews, if the model makes any, then the pictures."""
    shown = 0
    try:
        async with aclosing(attached.steps(job_id, services, watches=partial_images > 0)) as seen:
            async for one in seen:
                if isinstance(one, Progress):
                    if shown < partial_images and (data := await preview_of(one.preview, services)):
                        yield _partial(data, shown)
                        shown += 1
                elif one.state.is_terminal:
                    result = result_of(one)
                    told = {"warnings": [*warnings, *result.warnings]}
                    for image in result.images:
                        yield _completed(image, await base64_of(image, services), told)
                else:
                    yield KEEPALIVE
    except CrossmodalError as e:
        yield _event("error", {"error": body_of(fault_of(e)).model_dump()})


def _partial(data: bytes, index: int) -> bytes:
    picture = base64.b64encode(data).decode()
    return _event(
        "image_generation.partial_image",
        {
            "b64_json": picture,
            "partial_image_index": index,
            "created_at": int(time.time()),
            "size": "auto",
            "quality": "auto",
            "background": "auto",
            "output_format": "jpeg",
        },
    )


def _completed(image: ImageRef, picture: str, told: dict[str, Any]) -> bytes:
    return _event(
        "image_generation.completed",
        {
            "b64_json": picture,
            "created_at": int(time.time()),
            "size": _size(image),
            "quality": "auto",
            "background": "opaque",
            "output_format": _format(image),
            "usage": Tokens().model_dump(),
            **told,
        },
    )


def _event(name: str, data: dict[str, Any]) -> bytes:
    return format_sse_event(event=name, data_str=json.dumps({"type": name, **data}))


def _size(image: ImageRef) -> str:
    return f"{image.width}x{image.height}"


def _format(image: ImageRef) -> str:
    return image.media_type.removeprefix("image/")
