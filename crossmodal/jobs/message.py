"""The Celery message of a job, as stored in a queue's Redis list.

    {"body": base64 of [args, kwargs, embed], "content-type", "content-encoding",
     "headers": {"id", "task", …}, "properties": {"delivery_tag", "delivery_info", …}}

Celery's message protocol 2 in kombu's virtual transport. It is built here so that one Lua script
creates a job's record and its message, and checked here because a malformed message kills the
Celery worker that takes it. A test compares it with Celery's own.
"""

import base64
import binascii
import json
import re
import reprlib
import secrets
from collections.abc import Container, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from crossmodal.errors import InvalidMessage, InvalidParams, UnknownTask
from crossmodal.invalid import explained
from crossmodal.jobs.names import RECORDED_HEADER, check_job_id
from crossmodal.jobs.params import Params, task_of
from crossmodal.kinds.queue import Queue

URGENT, LAST = -1, 9  # priorities in kombu's terms; stock kombu has none before 0
EMPTY_BODY = base64.b64encode(b"[[],{},{}]").decode()  # args, kwargs, embed
MAX_SHOWN = 80  # characters of an argument in Flower and logs
EXCERPT = 65_536  # bytes at either end of a message that are searched for its job's id
_ID = re.compile(rb'"id":\s*"([A-Za-z0-9][A-Za-z0-9._-]{0,127})"')


def broker_priority(priority: int, owner: str) -> int:
    """Return the kombu priority of a job's message; kombu takes the lowest first.

    0 for every job with an owner: the owner's backlog has ordered it already.
    """
    return 0 if owner else {1: URGENT, 0: 0, -1: LAST}[priority]


def message_of(job_id: str, params: Params, model: str | None = None, priority: int = 0) -> str:
    """Return the message of a job for the queue of a model, or of the default model."""
    shown = params.model_dump(mode="json", exclude_defaults=True)
    return message_for(Queue(task_of(params), model), job_id, shown, priority)


def message_for(queue: Queue, job_id: str, params: Mapping[str, Any], priority: int = 0) -> str:
    """Return the message of a job with a record, from which workers read the params.

    It has only the fields that Celery needs and shortened params for Flower: a queue may hold a
    million messages. `priority` is in kombu's terms: the lowest is taken first.
    """
    headers = {
        "lang": "py",
        "task": queue.task.celery_name,
        "id": job_id,
        "argsrepr": "()",
        "kwargsrepr": _shown(params),
        RECORDED_HEADER: True,
    }
    properties = {
        "correlation_id": job_id,
        "priority": priority,
        "body_encoding": "base64",
        "delivery_info": {"exchange": "", "routing_key": str(queue)},
        "delivery_tag": secrets.token_hex(8),
    }
    message = {
        "body": EMPTY_BODY,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": properties,
    }
    return json.dumps(message, separators=(",", ":"))


def _shown(params: Mapping[str, Any]) -> str:
    """Return the params as Flower and logs show them: shortened, without metadata."""
    values = {name: value for name, value in params.items() if name != "metadata"}
    for name, value in values.items():
        text = value.get("key") if isinstance(value, dict) and "key" in value else value  # a blob
        if isinstance(text, list | dict):
            text = reprlib.repr(text)
        if isinstance(text, str) and len(text) > MAX_SHOWN:
            text = f"{text[:MAX_SHOWN]}…"
        values[name] = text
    return repr(values)


def _checked_time(text: str) -> str:
    try:
        datetime.fromisoformat(text).astimezone()
    except OverflowError as e:
        raise ValueError(f"the time is out of range: {e}") from e
    return text


Time = Annotated[str, AfterValidator(_checked_time)]


Name = Annotated[str, Field(max_length=255)]  # names from other senders, copied into Celery events


class _Headers(BaseModel):
    id: Annotated[str, AfterValidator(check_job_id)]
    task: str
    shadow: str | None = None
    retries: int = 0
    eta: Time | None = None
    expires: Time | None = None
    expires_taken_over: Time | None = Field(None, alias="crossmodal_expires")  # EXPIRES_HEADER
    timelimit: tuple[float | None, float | None] | None = None
    group: Name | None = None
    root_id: Name | None = None
    parent_id: Name | None = None
    headers: dict[str, Any] | None = None
    stamps: dict[str, Any] | None = None
    stamped_headers: list[str] | None = None
    compression: None = None


class _DeliveryInfo(BaseModel):
    exchange: str
    routing_key: str


class _Properties(BaseModel):
    delivery_tag: str
    delivery_info: _DeliveryInfo
    body_encoding: Literal["base64"] | None = None
    priority: int | None = 0
    correlation_id: Name | None = None
    reply_to: Name | None = None


class _Message(BaseModel):
    body: str
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")
    headers: _Headers
    properties: _Properties

    def check_body(self) -> None:
        encoded = self.properties.body_encoding == "base64"
        text = base64.b64decode(self.body, validate=True) if encoded else self.body
        call = json.loads(text)
        kinds = [type(part) for part in call] if isinstance(call, list) else []
        if kinds != [list, dict, dict]:
            raise ValueError("its body is not [args, kwargs, embed]")
        if "self" in call[1]:  # Celery would pass it as the bound task
            raise ValueError("an argument cannot be called 'self'")


def parse_message(raw: bytes, max_bytes: int, known_tasks: Container[str]) -> dict[str, Any]:
    """Parse a message, after checking that it cannot harm a Celery worker.

    Raises `InvalidMessage`, or `UnknownTask` for a task that is not in `known_tasks`.
    """
    if len(raw) > max_bytes:
        raise InvalidMessage(
            f"the message is {len(raw)} bytes, {max_bytes} are allowed: pictures go through the "
            "object store; or raise CROSSMODAL_MAX_MESSAGE_BYTES"
        )
    try:
        message = _Message.model_validate_json(raw)
        message.check_body()
        parsed: dict[str, Any] = json.loads(raw)
    except InvalidParams as e:  # an invalid job id
        raise InvalidMessage(f"not a valid Celery message: {e}") from e
    except ValidationError as e:
        what = explained(e.errors()[0], "message")
        raise InvalidMessage(f"not a valid Celery message: {what}") from e
    except (ValueError, RecursionError, binascii.Error) as e:
        raise InvalidMessage(f"not a valid Celery message: {e}") from e
    if message.headers.task not in known_tasks:
        raise UnknownTask(f"workers of this version have no task {message.headers.task!r}")
    return parsed


def job_of(raw: bytes) -> str | None:
    """Return the job id in a message, which may be malformed; None if there is none."""
    found = _ID.search(raw[:EXCERPT]) or _ID.search(raw[-EXCERPT:])
    return found.group(1).decode() if found else None
