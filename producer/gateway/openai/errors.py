"""Errors as clients of OpenAI's API expect them: `{"error": {message, type, code, param}}`."""

from http import HTTPStatus
from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from crossmodal.errors import InvalidParams, QueueFull
from producer.gateway.problems import MEANINGS, Fault, status_of_answer
from producer.gateway.problems import documented as problems

TAG = "openai"
"""Of routes that answer errors so."""


class ErrorBody(BaseModel):
    """What went wrong; `code` is this project's and never changes."""

    message: str
    type: str
    code: str
    param: str | None = Field(default=None, description="The field that is wrong.")


class Error(BaseModel):
    """An error as OpenAI's API has it."""

    error: ErrorBody


def rendered(fault: Fault) -> Response:
    """The response of a route with this tag. Its client is told whether to try again."""
    status = _status(fault)
    headers = {**fault.headers, "X-Should-Retry": "true" if fault.retryable else "false"}
    body = Error(error=body_of(fault)).model_dump_json()
    return Response(body, status, headers, media_type="application/json")


def body_of(fault: Fault) -> ErrorBody:
    """An error, also of a stream that has begun."""
    param = fault.cause.field if isinstance(fault.cause, InvalidParams) else None
    kind = _type(_status(fault))
    return ErrorBody(message=fault.detail, type=kind, code=fault.code, param=param)


EXAMPLE = {
    "error": {
        "message": "body: unknown field 'stpes': did you mean 'steps'?",
        "type": "invalid_request_error",
        "code": "invalid_params",
        "param": "stpes",
    }
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Statuses for a route's documentation."""
    described = MEANINGS | {400: f"{MEANINGS[400]} {MEANINGS[422]}", 500: "The job has failed."}
    return {
        status: {
            "description": described[status],
            "model": Error,
            "content": {"application/json": {"example": EXAMPLE}},
        }
        for status in (*statuses, 400, 401, 403, 404, 408, 413, 415, 429, 500, 503)
    }


def documented_besides(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Statuses of a route that also answers others, whose errors are problems."""
    return {
        status: {**response, "model": Error} for status, response in problems(*statuses).items()
    }


def _status(fault: Fault) -> int:
    """As OpenAI has it, whose clients tell errors apart by their statuses."""
    if isinstance(fault.cause, QueueFull):
        return HTTPStatus.TOO_MANY_REQUESTS
    return status_of_answer(fault, HTTPStatus.BAD_REQUEST)


def _type(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
