"""Errors as responses: `application/problem+json` (RFC 9457), in one place.

The error's class decides the HTTP status; the body has the error's own code, so that programs
need not parse texts. Routes of another service's interface answer as that service does; their
tag names the renderer.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from crossmodal import invalid
from crossmodal.errors import (
    BlobNotFound,
    BodyTooLarge,
    BodyTooSlow,
    BrokerUnavailable,
    CrossmodalError,
    DeadLetterNotFound,
    DeliveryNotFound,
    FetchFailed,
    Forbidden,
    ImageTooLarge,
    InvalidParams,
    InvalidPrompt,
    JobCanceled,
    JobExpired,
    JobFailed,
    JobNotFound,
    ModelBroken,
    ModelNotFound,
    NotSupported,
    Overloaded,
    QueueFull,
    QueueNotFound,
    RateLimited,
    ResultTimeout,
    StorageUnavailable,
    TooManyQueued,
    Unauthorized,
    WaitTooLong,
    WrongState,
    is_callers_fault,
)
from producer.gateway.headers import secure
from producer.http.manners import allowed
from producer.http.overload import KINDS, overload
from producer.told import is_outage, told_error

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
MOST_SHOWN = 5  # invalid fields in a message
EVENTS_TAG = "events"  # the tag of routes that answer with an event stream
STREAM = "text/event-stream"
CLIENT_GONE = 499  # nginx's status for a client that has disconnected
RETRY_S = 5  # for errors that have no `retry_after_s`
# EventSource never reconnects after an error response; after an empty stream it does.
LATER = f": Redis or the object store is not available\nretry: {RETRY_S * 1_000}\n\n"

STATUSES: dict[type[CrossmodalError], int] = {  # subclasses have their nearest base's
    Unauthorized: 401,
    Forbidden: 403,
    JobNotFound: 404,
    DeadLetterNotFound: 404,
    DeliveryNotFound: 404,
    BlobNotFound: 404,
    WrongState: 409,
    ResultTimeout: 409,
    JobFailed: 409,
    JobCanceled: 410,
    JobExpired: 410,
    ImageTooLarge: 413,
    InvalidParams: 422,
    BodyTooLarge: 413,
    BodyTooSlow: 408,
    Overloaded: 503,
    RateLimited: 429,
    FetchFailed: 422,
    TooManyQueued: 429,
    QueueFull: 503,
    BrokerUnavailable: 503,
    StorageUnavailable: 503,
    ModelBroken: 503,
    WaitTooLong: 429,
    NotSupported: 501,
    QueueNotFound: 404,
}
MEANINGS = {
    400: "The request cannot be read.",
    401: "An API key is needed, or this one is not known.",
    403: "The API key, or the site of the page that sent the request, may not do this.",
    404: "There is nothing of this name that the API key may see.",
    408: "The body did not arrive in time.",
    409: "The state of the job does not allow this.",
    410: "The job was canceled, or has expired.",
    413: "The body or the picture is larger than allowed.",
    415: "The media type of the body is not supported.",
    416: "The range lies outside the blob.",
    422: "A field is wrong; `detail` names it, its value and the limit.",
    429: "Too many calls, waiting jobs or open streams of this key; `Retry-After` says when to "
    "retry.",
    501: "This operation of another service's API is not supported here.",
    503: "Redis, the object store, the queue or the gateway accepts nothing now; `Retry-After` "
    "says when to retry.",
}
CODES = {400: "bad_request", 401: "unauthorized", 404: "not_found", 405: "method_not_allowed"}


class Problem(BaseModel):
    """An error; its `code` is stable. `retryable`: the same request may succeed later."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool


class BadRequest(CrossmodalError):
    """The request's body or a header cannot be read."""

    code = "bad_request"
    caused_by_request = True


class UnsupportedMediaType(CrossmodalError):
    """The media type of the body is not supported."""

    code = "unsupported_media_type"
    caused_by_request = True


class RangeNotSatisfiable(CrossmodalError):
    """The range lies outside the blob."""

    code = "range_not_satisfiable"
    caused_by_request = True


class NothingMore(Exception):
    """A reconnection to an ended stream; the client shall not reconnect again."""


EXAMPLES = (
    BadRequest("the body is not JSON: Expecting value: line 1 column 12 (char 11)"),
    Unauthorized("an API key is needed: send the header Authorization: Bearer cm_…"),
    Forbidden("this is for operators: `crossmodal keys create NAME --operator`"),
    JobNotFound("there is no job '01a20026-8c96-7bba-8e3c-5db14a5fec48' of this API key"),
    WrongState("job 01a20026-8c96-7bba-8e3c-5db14a5fec48 has not ended: it is running"),
    JobCanceled("job 01a20026-8c96-7bba-8e3c-5db14a5fec48 was canceled"),
    BodyTooLarge("the body has 40000000 bytes or more, 28027221 are allowed: send less"),
    BodyTooSlow(
        "40000 bytes of the body came in 38 s: send at least 5000 bytes a second, and all of it "
        "within 600 s"
    ),
    UnsupportedMediaType("the body is 'text/xml': send application/json or multipart/form-data"),
    RangeNotSatisfiable("bytes=5000- lies outside the 3012 bytes of the blob"),
    InvalidPrompt("the prompt has 1204 characters, 1000 are allowed: shorten it"),
    RateLimited("this API key may make 50 calls a second, 100 at once: wait a moment"),
    NotSupported("editing pictures is not supported: /v1/images/generations draws new ones"),
    BrokerUnavailable("Redis is not available: try again in a moment"),
)
STATUSES |= {BadRequest: 400, UnsupportedMediaType: 415, RangeNotSatisfiable: 416}


def status_of(error: CrossmodalError) -> int:
    """Return the HTTP status of an error."""
    kinds = (STATUSES.get(kind) for kind in type(error).__mro__)
    return next((status for status in kinds if status), 500)


@dataclass(frozen=True)
class Fault:
    """An error, independent of its format; `cause` is set for errors of this project."""

    status: int
    code: str
    detail: str
    retryable: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    cause: CrossmodalError | None = None


Renderer = Callable[[Fault], Response]


def problem(fault: Fault) -> Response:
    """Render a fault as a problem."""
    body = _body(fault.status, fault.code, fault.detail, fault.retryable).model_dump_json()
    return Response(body, fault.status, fault.headers, media_type=MEDIA_TYPE)


def _body(status: int, code: str, detail: str, retryable: bool) -> Problem:
    return Problem(
        type=f"urn:crossmodal:error:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        retryable=retryable,
    )


def fault_of(error: CrossmodalError) -> Fault:
    """Return what a response reports of an error of this project."""
    status = status_of(error)
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="crossmodal"'
    if status == HTTPStatus.REQUEST_TIMEOUT:
        headers["Connection"] = "close"
    if status in (429, 503) or isinstance(error, ResultTimeout):
        wait_s = error.retry_after_s if isinstance(error, QueueFull) else RETRY_S
        headers["Retry-After"] = str(max(1, math.ceil(wait_s)))
    if is_outage(error):
        log.warning("%s: %s", error.code, error)  # with addresses, which the response leaves out
    return Fault(status, error.code, told_error(error), error.retryable, headers, error)


def status_of_answer(fault: Fault, wrong: int) -> int:
    """Return the status for routes that answer with a job's result instead of the job.

    It is `wrong` for an invalid request, whether the gateway or the model found it invalid.
    """
    cause = fault.cause
    if isinstance(cause, ModelNotFound):
        return HTTPStatus.NOT_FOUND
    if isinstance(cause, JobFailed) and fault.status == HTTPStatus.CONFLICT:
        return wrong if is_callers_fault(cause.code) else HTTPStatus.INTERNAL_SERVER_ERROR
    return wrong if fault.status == HTTPStatus.UNPROCESSABLE_ENTITY else fault.status


def install(app: FastAPI, renderers: Mapping[str, Renderer]) -> None:
    """Install handlers that answer every error of an application as a problem.

    Routes with a tag of `renderers` use that renderer instead.
    """
    answer = partial(_answer, renderers)

    @app.exception_handler(CrossmodalError)
    async def ours(request: Request, error: CrossmodalError) -> Response:
        return answer(request, fault_of(error))

    async def short(request: Request, error: Exception) -> Response:
        found = overload(error)
        if found is None:
            raise error
        log.warning("overloaded: %r", error)
        return answer(request, fault_of(found))

    for kind in KINDS:
        app.add_exception_handler(kind, short)

    @app.exception_handler(RequestValidationError)
    async def unread(request: Request, error: RequestValidationError) -> Response:
        errors = error.errors()
        is_header = any(one["loc"][0] == "header" for one in errors)
        kind = BadRequest if is_header else InvalidParams
        return answer(request, fault_of(kind(described(errors))))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_GONE)

    @app.exception_handler(NothingMore)
    async def told_all(request: Request, error: NothingMore) -> Response:
        return Response(status_code=204)  # at which EventSource stops reconnecting

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        detail = "internal error: see the gateway's log"
        response = answer(request, Fault(500, CrossmodalError.code, detail))
        secure(response.headers, request.url.path)  # it bypasses the middleware
        return response

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> Response:
        return answer(request, _fault_of_framework(error, app, request))


def _answer(renderers: Mapping[str, Renderer], request: Request, fault: Fault) -> Response:
    """Render a fault in the format of the failed request's route."""
    tags = [
        getattr(request.state, "dialect", None),
        *getattr(request.scope.get("route"), "tags", ()),
    ]
    wants_events = EVENTS_TAG in tags and STREAM in request.headers.get("accept", "")
    if wants_events and fault.status == HTTPStatus.SERVICE_UNAVAILABLE:
        return Response(LATER, headers=fault.headers, media_type=STREAM)
    return next((renderers[tag] for tag in tags if tag in renderers), problem)(fault)


def _fault_of_framework(error: HTTPException, app: FastAPI, request: Request) -> Fault:
    """Return the fault of an error by Starlette or FastAPI, such as an unknown path."""
    headers = dict(error.headers or {})
    is_method = error.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    if is_method and (allow := allowed(app, request.scope)):
        headers["Allow"] = allow
    code = CODES.get(error.status_code, "http_error")
    return Fault(error.status_code, code, str(error.detail), headers=headers)


def described(errors: Sequence[Any]) -> str:
    """Describe the first few invalid fields in a message."""
    shown = "; ".join(invalid.explained(error, "body") for error in errors[:MOST_SHOWN])
    return f"{shown}; …" if len(errors) > MOST_SHOWN else shown


def linked(parameter: str, paths: dict[str, str]) -> dict[str, Any]:
    """Return OpenAPI links from an answer's `id` to the operations that take it."""
    parameters = {parameter: "$response.body#/id"}
    return {
        name: {"operationRef": f"#/paths/{path}", "parameters": parameters}
        for name, path in paths.items()
    }


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI entries of error statuses; a route with 413 has a body, so 408, too."""
    slow = (408,) if 413 in statuses else ()
    return {
        status: {
            "description": MEANINGS[status],
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "example": _example(status),
                }
            },
        }
        for status in (*statuses, *slow, 400, 401, 403, 422, 429, 503)
    }


def _example(status: int) -> dict[str, Any]:
    error = next(error for error in EXAMPLES if status_of(error) == status)
    return _body(status, error.code, str(error), error.retryable).model_dump()
