"""Errors as clients of OpenAI's API expect them: `{"error": {message, type, code, param}}`."""

from http import HTTPStatus
from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from crossmodal.errors import InvalidParams, QueueFull
from producer.gateway.problems import MEANINGS, Fault, status_of_answer
from producer.gateway.problems import documented as problems

TAG = "openai"
"""The tag of routes that render errors in OpenAI's format."""


class ErrorBody(BaseModel):
    """An error's details; `code` is this project's and stable."""

    message: str
    type: str
    code: str
    param: str | None = Field(default=None, description="The field that is wrong.")


class Error(BaseModel):
    """An error in OpenAI's format."""

    error: ErrorBody


def rendered(fault: Fault) -> Response:
    """Render a fault in OpenAI's format, with a header that says whether to retry."""
    status = _status(fault)
    headers = {**fault.headers, "X-Should-Retry": "true" if fault.retryable else "false"}
    body = Error(error=body_of(fault)).model_dump_json()
    return Response(body, status, headers, media_type="application/json")


def body_of(fault: Fault) -> ErrorBody:
    """Return a fault's body, for responses and for open streams."""
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
    """Return the OpenAPI entries of error statuses."""
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
    """Return the OpenAPI entries of errors that are OpenAI's, or problems to other clients."""
    return {
        status: {**response, "model": Error} for status, response in problems(*statuses).items()
    }


def _status(fault: Fault) -> int:
    """Return OpenAI's status for a fault: its SDKs tell errors apart by status."""
    if isinstance(fault.cause, QueueFull):
        return HTTPStatus.TOO_MANY_REQUESTS
    return status_of_answer(fault, HTTPStatus.BAD_REQUEST)


def _type(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
