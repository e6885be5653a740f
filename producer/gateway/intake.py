"""Checks of a batch job's file on arrival; what its lines may name is decided only then.

A batch runner that resumes must read the same lines, or it would make other messages.
"""

import json
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from crossmodal.errors import BlobNotFound, CrossmodalError, InvalidParams
from crossmodal.jobs.record import Failure
from crossmodal.kinds.task import Task
from producer.batches.jsonl import REFUSED, parsed, task_of
from producer.gateway.body import PICTURES
from producer.gateway.ownership import missing
from producer.told import is_outage

MOST_LINES = 100_000
TURN_S = 0.2  # max time of one turn; other files wait for it
Line = dict[str, Any]


def check_lines(
    source: Path,
    target: Path,
    may_name: Callable[[str], bool],
    caller: str,
    translated: Callable[[Line], Line] = lambda line: line,
) -> Generator[None, None, bool]:
    """Copy a file of requests, with lines that may not run replaced by their errors.

    A line is refused if the caller may not name its picture, or if `translated` raises. Yields
    at the end of each turn. Returns whether the file mixes kinds. Raises `InvalidParams` for too
    many lines, before any of them is checked.
    """
    with source.open("rb") as lines:
        count = sum(1 for _ in lines)
    if count > MOST_LINES:
        raise InvalidParams(f"the file has {count} lines, {MOST_LINES} are allowed: split it")
    tasks: set[Task] = set()
    turn_ends = time.monotonic() + TURN_S
    with source.open("rb") as lines, target.open("wb") as checked:
        for line in lines:
            if time.monotonic() > turn_ends:
                yield
                turn_ends = time.monotonic() + TURN_S
            given = _request(line)
            try:
                request = translated(given)
                if (key := _key(request)) is not None and not may_name(key):
                    raise BlobNotFound(missing("blob", key, caller))
            except CrossmodalError as e:
                if is_outage(e):  # no fault of the line
                    raise
                request = refused(given, e)
            if (task := task_of(request)) is not None:
                tasks.add(task)
            checked.write(line if request is given else json.dumps(request).encode() + b"\n")
    return len(tasks) > 1


def _request(line: bytes) -> Line:
    """Parse a line; an unreadable one is empty here, and fails alone when it runs."""
    try:
        return parsed(line) if line.strip() else {}
    except InvalidParams:
        return {}


def refused(request: Line, error: CrossmodalError) -> Line:
    """Return a line that carries its error, to be reported instead of run."""
    kept = {name: request[name] for name in ("custom_id", "url") if name in request}
    return kept | {REFUSED: Failure.of(error).model_dump(mode="json")}


def _key(request: Line) -> str | None:
    """Return the key of a line's picture; if there are several, a later check refuses the line."""
    body = request.get("body")
    given = [body.get(name) for name in PICTURES.values()] if isinstance(body, dict) else []
    keys = (image.get("key") for image in given if isinstance(image, dict))
    return next((key for key in keys if isinstance(key, str)), None)
