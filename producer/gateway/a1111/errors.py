"""Errors as clients of AUTOMATIC1111's API expect them: `{error, detail, body, errors}`."""

from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from producer.gateway.problems import MEANINGS, Fault, status_of_answer

TAG = "a1111"
"""The tag of routes that render errors in the web UI's format."""
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="crossmodal", Basic realm="crossmodal"'}


class A1111Error(BaseModel):
    """An error; `error` is this project's stable code."""

    error: str
    detail: str
    body: str = Field(default="", description="Always empty.")
    errors: str = Field(description="The same as `detail`.")


def rendered(fault: Fault) -> Response:
    """Render a fault in the web UI's format."""
    status = status_of_answer(fault, 422)
    headers = {**fault.headers, **(CHALLENGE if status == 401 else {})}
    body = A1111Error(error=fault.code, detail=fault.detail, errors=fault.detail)
    return Response(body.model_dump_json(), status, headers, media_type="application/json")


SAID = "enable_hr is True (bool), which is not supported: leave it out"
EXAMPLE = A1111Error(error="invalid_params", detail=SAID, errors=SAID).model_dump()


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI entries of error statuses."""
    described = MEANINGS | {500: "The job has failed."}
    return {
        status: {
            "description": described[status],
            "model": A1111Error,
            "content": {"application/json": {"example": EXAMPLE}},
        }
        for status in (*statuses, 400, 401, 403, 422, 429, 503)
    }
