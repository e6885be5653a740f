"""The contents of tool results: texts and pictures."""

import base64
import json
from collections.abc import Iterable
from typing import Any

from mcp_types import CallToolResult, ContentBlock, ImageContent, TextContent

from crossmodal.errors import CrossmodalError
from crossmodal.jobs.models import KnownModels
from crossmodal.jobs.record import Job, JobResult, ModelInfo
from crossmodal.jobs.vocabulary import MAX_WORDS
from producer.aio import AsyncClient
from producer.commands.outcome import rows_of
from producer.handle import result_of
from producer.told import failure_view, told_error

Content = list[ContentBlock]


def text(lines: Iterable[tuple[str, Any]]) -> TextContent:
    """Return a text with a `name: value` line for each pair."""
    return TextContent(text="\n".join(f"{name}: {value}" for name, value in lines))


async def made(job: Job, client: AsyncClient) -> Content:
    """Return the result of an ended job; raises the error of a job without one."""
    result = result_of(job)
    pictures = [
        ImageContent(
            data=base64.b64encode(await client.read(image)).decode(), mime_type=image.media_type
        )
        for image in result.images
    ]
    return [text(_rows(result)), *pictures]


def _rows(result: JobResult) -> list[tuple[str, Any]]:
    job, *rest = rows_of(result)
    return [job, ("model", result.model), *rest]


def going_on(job_id: str, place: str) -> Content:
    """Return the state of a job that has not ended, and how to wait for it."""
    rows = [("job", job_id), ("state", place)]
    return [
        text([*rows, ("next", "call `job` with this id; with `wait`, it waits for the result")])
    ]


def without_result(job: Job) -> Content:
    """Return the state and the failure of a job that ended without a result."""
    rows: list[tuple[str, Any]] = [("job", job.id), ("state", job.state)]
    failure = failure_view(job.failure)
    return [
        text([*rows, *([("failure", f"{failure.code}: {failure.message}")] if failure else [])])
    ]


def models(known: KnownModels, told: Iterable[ModelInfo], most_words: int = MAX_WORDS) -> Content:
    """Return models as JSON, with their params' schemas and up to `most_words` of their words."""
    rows = [_model(known, model, most_words) for model in told]
    return [TextContent(text=json.dumps(rows, ensure_ascii=False))]


def _model(known: KnownModels, model: ModelInfo, most_words: int) -> dict[str, Any]:
    kinds = {
        kind: served.model_dump(include={"params", "run_s"}) for kind, served in model.kinds.items()
    }
    failure = failure_view(known.failure(model.name))
    words = model.vocabulary and model.vocabulary.shortened(most_words)
    return {
        "name": model.name,
        "aliases": model.aliases,
        "description": model.description,
        "vocabulary": None if words is None else words.model_dump(),
        "state": known.state(model.name),
        "default_for": model.default_for,
        "kinds": kinds,
        "failure": None if failure is None else failure.model_dump(),
    }


def refusal(error: CrossmodalError, *, is_public: bool) -> CallToolResult:
    """Return an error as a tool's result; if `is_public`, without internal addresses."""
    message = told_error(error) if is_public else str(error)
    return CallToolResult(
        is_error=True,
        content=[TextContent(text=f"{error.code}: {message}")],
        structured_content={"code": error.code, "message": message, "retryable": error.retryable},
    )
