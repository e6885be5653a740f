"""`/v1/chat/completions` of OpenAI's API: captions of one picture, in the response."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue
from pydantic_core import PydanticCustomError

from crossmodal.errors import CrossmodalError, InvalidParams
from crossmodal.jobs.access import ApiKey
from crossmodal.jobs.record import Job
from crossmodal.kinds.base import ItemParams
from crossmodal.kinds.img2txt import IMG2TXT
from crossmodal.kinds.schema import Schema, properties_of
from crossmodal.unknown import check_fields
from producer.gateway import attached
from producer.gateway.body import built, check_once, json_of, named_as, taking
from producer.gateway.caller import Caller, UrlsOf, origin_of
from producer.gateway.openai.errors import TAG, body_of
from producer.gateway.openai.models import MODELS_S, model_named, schema_of
from producer.gateway.openai.routes import answering
from producer.gateway.pictures import SQUARE, params_of
from producer.gateway.problems import fault_of
from producer.gateway.requests import REQUESTS, Closed, JobRequest
from producer.gateway.services import Services, ServicesOf
from producer.gateway.waiting import KEEPALIVE
from producer.handle import result_of

router = APIRouter(tags=[TAG])


class ImageUrl(Closed):
    """A picture as a `data:` URL, or by its URL if the gateway fetches pictures."""

    url: str = Field(min_length=5)
    detail: JsonValue = None


class Part(Closed):
    """A part of a message: a text, or a picture."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | None = None


def _in_parts(content: Any) -> Any:
    if isinstance(content, str):
        return [Part(type="text", text=content)]
    if not isinstance(content, list):
        raise PydanticCustomError("no_content", "give a text, or a list of parts")
    return content


class Message(Closed):
    """A message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[list[Part], BeforeValidator(_in_parts, str | list[Part])]
    name: str | None = None


class ChatRequest(BaseModel):
    """One picture to describe, with a text for models that have a `prompt`.

    Other fields are params of the model; `metadata` is kept with the job. `temperature` and other
    sampling options are accepted, and ignored by a model that has no such param.
    """

    model_config = ConfigDict(extra="allow")

    messages: list[Message] = Field(min_length=1, max_length=20)
    model: str | None = Field(default=None, max_length=64)
    n: int | None = Field(default=None, ge=1, description="How many captions.")
    max_tokens: int | None = Field(default=None, ge=1, description="Max number of words.")
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stream: bool | None = None
    stream_options: dict[str, JsonValue] | None = None
    temperature: JsonValue = None
    top_p: JsonValue = None
    frequency_penalty: JsonValue = None
    presence_penalty: JsonValue = None
    seed: JsonValue = None
    stop: JsonValue = None
    logprobs: Literal[False] | None = None
    store: Literal[False] | None = None
    metadata: JsonValue = None
    user: JsonValue = None
    safety_identifier: JsonValue = None


class ChatMessage(BaseModel):
    """A caption."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """One of the captions, the likeliest first."""

    index: int
    message: ChatMessage
    finish_reason: Literal["stop"] = "stop"
    logprobs: None = None


class Usage(BaseModel):
    """Token counts: always zero, for clients that read them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class ChatResponse(BaseModel):
    """Captions; `id` ends with the id of the job that made them."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage = Usage()


OURS = {"count": "n"}
NOT_HERE = JobRequest.model_fields.keys() | {IMG2TXT.picture}  # fields of `/v1/jobs` only
STEERING = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "stop")
SCHEMA = taking(
    ChatRequest,
    {
        "model": "scenes",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is in this picture?"},
                    {"type": "image_url", "image_url": {"url": SQUARE}},
                ],
            }
        ],
    },
)
STREAMED = "The captions; or, with `stream`, chunks of them."


@answering(router, "/chat/completions", ChatResponse, STREAMED, SCHEMA)
async def complete(
    request: Request,
    key: Caller,
    services: ServicesOf,
    urls: UrlsOf,
    wanted: Annotated[ChatRequest, json_of(ChatRequest)],
) -> Any:
    """Describe the picture of a message. The job is canceled if the caller disconnects."""
    params = await _params_of(wanted, key, services)
    wanted.messages.clear()  # frees memory: the picture is in the store
    job_id = await attached.submit(params, origin_of(key, urls, None, ()), services, request)
    if wanted.stream:
        with_usage = bool((wanted.stream_options or {}).get("include_usage"))
        events = _events(job_id, services, with_usage=with_usage)
        return StreamingResponse(events, media_type="text/event-stream")
    return _answer(await attached.ended(job_id, services, request))


async def _params_of(wanted: ChatRequest, key: ApiKey, services: Services) -> ItemParams:
    """Return the job's params, its picture stored. Raises what is wrong with either."""
    known = await services.client.models(max_age_s=MODELS_S)
    model = model_named(wanted.model, IMG2TXT, known)
    fields = translated(wanted, schema_of(model, IMG2TXT, known))
    body = {"task": IMG2TXT.name, **fields} | ({} if model is None else {"model": model})
    with named_as(OURS, wanted.model_extra or ()):
        asked = built(REQUESTS[IMG2TXT.name], body)
        return await params_of(asked, key, services, ChatRequest.model_fields)


def translated(wanted: ChatRequest, schema: Schema | None) -> dict[str, Any]:
    """Return a job's fields for a model with this schema. Raises `InvalidParams`."""
    declared, given = properties_of(schema), wanted.model_extra or {}
    check_fields([n for n in given if n in NOT_HERE], ChatRequest.model_fields, "body")
    check_once(wanted, OURS)
    text, picture = _said(wanted.messages)
    way = "data" if picture.lower().startswith("data:") else "url"
    fields: dict[str, Any] = {**given, "image": {way: picture}}
    if wanted.metadata is not None:
        fields["metadata"] = wanted.metadata
    if wanted.n is not None:
        fields["count"] = wanted.n
    if text and "prompt" in declared:
        fields["prompt"] = text
    steered = {name: getattr(wanted, name) for name in STEERING if name in declared}
    fields |= {name: value for name, value in steered.items() if value is not None}
    tokens = wanted.max_completion_tokens or wanted.max_tokens
    words = declared.get("max_words", {})
    if tokens is not None and words:
        fields["max_words"] = min(tokens, words.get("maximum", tokens))
    return fields


def _said(messages: list[Message]) -> tuple[str, str]:
    """Return the text with the picture, and the picture's URL. Raises `InvalidParams`."""
    users = [message for message in messages if message.role == "user"]
    if len(users) != 1 or any(m.role in ("assistant", "tool") for m in messages):
        raise InvalidParams(
            "messages: a chat history is not supported: send one message with role user", "messages"
        )
    parts = [part for message in messages for part in message.content]
    pictures = [part.image_url.url for part in parts if part.image_url is not None]
    if len(pictures) != 1:
        raise InvalidParams(
            f"messages: there are {len(pictures)} pictures: send one, as a part of type image_url",
            "messages",
        )
    return "\n".join(part.text for part in parts if part.text), pictures[0]


def _answer(job: Job) -> ChatResponse:
    result = result_of(job)
    choices = [
        Choice(index=i, message=ChatMessage(content=caption.text))
        for i, caption in enumerate(result.captions)
    ]
    return ChatResponse(
        id=f"chatcmpl-{job.id}", created=round(job.created_at), model=result.model, choices=choices
    )


async def _events(job_id: str, services: Services, *, with_usage: bool) -> AsyncIterator[bytes]:
    """Yield the answer in chunks, each caption whole in one."""
    try:
        async with aclosing(attached.steps(job_id, services)) as seen:
            async for one in seen:
                if isinstance(one, Job) and one.state.is_terminal:
                    for chunk in _chunks(_answer(one), with_usage=with_usage):
                        yield format_sse_event(data_str=json.dumps(chunk))
                else:
                    yield KEEPALIVE
    except CrossmodalError as e:
        error = {"error": body_of(fault_of(e)).model_dump()}
        yield format_sse_event(data_str=json.dumps(error))
    yield format_sse_event(data_str="[DONE]")


def _chunks(answer: ChatResponse, *, with_usage: bool) -> Iterator[dict[str, Any]]:
    whole = answer.model_dump(include={"id", "created", "model"})
    whole |= {"object": "chat.completion.chunk"}
    for choice in answer.choices:
        said = {"role": "assistant", "content": choice.message.content}
        for delta, reason in ((said, None), ({}, "stop")):
            yield whole | {
                "choices": [{"index": choice.index, "delta": delta, "finish_reason": reason}]
            }
    if with_usage:
        yield whole | {"choices": [], "usage": answer.usage.model_dump()}
