"""A file of requests as it is taken: what its lines may name is decided then, and not again.

When a batch is taken up again its lines must say the same, or its messages would be others.
"""

import json
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from crossmodal.errors import BlobNotFound, CrossmodalError, InvalidParams
from crossmodal.jobs.record import Failure
from crossmodal.kinds.task import Task
from producer.gateway.body import PICTURES
from producer.gateway.ownership import missing
from producer.jsonl import REFUSED, parsed, task_of

MOST_LINES = 100_000
TURN_S = 0.2  # how long other files wait for a turn of this one
Line = dict[str, Any]


def check_lines(
    source: Path,
    target: Path,
    may_name: Callable[[str], bool],
    caller: str,
    translated: Callable[[Line], Line] = lambda line: line,
) -> Generator[None, None, bool]:
    """Copy a file; in the copy, a line that may not be run says so.

    Such is one with a picture that may not be named, and one that cannot be `translated`. Yields
    when it is the turn of other files. Returns whether this one mixes kinds. Raises
    `InvalidParams` for one with too many lines, before any of them is looked at.
    """
    with source.open("rb") as lines:
        count = sum(1 for _ in lines)
    if count > MOST_LINES:
        raise InvalidParams(
            f"the file has {count} lines, {MOST_LINES} are allowed: make several of it"
        )
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
                request = refused(given, e)
            if (task := task_of(request)) is not None:
                tasks.add(task)
            checked.write(line if request is given else json.dumps(request).encode() + b"\n")
    return len(tasks) > 1


def _request(line: bytes) -> Line:
    """What a line asks for; nothing where it cannot be read, and fails alone."""
    try:
        return parsed(line) if line.strip() else {}
    except InvalidParams:
        return {}


def refused(request: Line, error: CrossmodalError) -> Line:
    """A line that says why it is not run."""
    kept = {name: request[name] for name in ("custom_id", "url") if name in request}
    return kept | {REFUSED: Failure.of(error).model_dump(mode="json")}


def _key(request: Line) -> str | None:
    """The key of the picture that a line names; of several, those of other kinds are refused."""
    body = request.get("body")
    given = [body.get(name) for name in PICTURES.values()] if isinstance(body, dict) else []
    keys = (image.get("key") for image in given if isinstance(image, dict))
    return next((key for key in keys if isinstance(key, str)), None)
