"""Routes with and without `/v1`: clients of OpenAI's API differ."""

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from producer.gateway.caller import lasting
from producer.gateway.openai.errors import documented
from producer.gateway.waiting import EVENTS

F = TypeVar("F", bound=Callable[..., Any])


def answering(
    router: APIRouter, path: str, answer: type[BaseModel], said: str, body: dict[str, Any]
) -> Callable[[F], F]:
    """Return a decorator that routes both paths to a function.

    The function returns an `answer` or events, as `said` documents, on an open connection.
    """
    found = {"model": answer, "content": EVENTS, "description": said}

    def both(function: F) -> F:
        for whole in (path, f"/v1{path}"):
            router.post(
                whole,
                response_model=answer,
                openapi_extra=body,
                responses=documented(410) | {200: found},
                dependencies=[Depends(lasting)],
            )(function)
        return function

    return both
