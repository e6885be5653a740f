"""A file of requests as it is taken: what its lines may name is decided then, and not again.

When a batch is taken up again its lines must say the same, or its messages would be others.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crossmodal.errors import InvalidParams
from crossmodal.kinds.task import Task
from producer.gateway.body import PICTURES
from producer.gateway.ownership import missing
from producer.jsonl import REFUSED, parsed, task_of

MOST_LINES = 100_000


def check_lines(source: Path, target: Path, may_name: Callable[[str], bool], caller: str) -> bool:
    """Copy a file; in the copy, a line with a picture that may not be named says so.

    Returns whether it mixes kinds. Raises `InvalidParams` for one with too many lines, before any
    of them is looked at.
    """
    with source.open("rb") as lines:
        count = sum(1 for _ in lines)
    if count > MOST_LINES:
        raise InvalidParams(
            f"the file has {count} lines, {MOST_LINES} are allowed: make several of it"
        )
    tasks: set[Task] = set()
    with source.open("rb") as lines, target.open("wb") as checked:
        for line in lines:
            request = _request(line)
            if (task := task_of(request)) is not None:
                tasks.add(task)
            key = _key(request)
            is_good = key is None or may_name(key)
            checked.write(line if is_good else _refused(request, key or "", caller))
    return len(tasks) > 1


def _request(line: bytes) -> dict[str, Any]:
    """What a line asks for; nothing where it cannot be read, and fails alone."""
    try:
        return parsed(line) if line.strip() else {}
    except InvalidParams:
        return {}


def _refused(request: dict[str, Any], key: str, caller: str) -> bytes:
    kept = {name: request[name] for name in ("custom_id", "url") if name in request}
    refused = kept | {REFUSED: missing("blob", key, caller)}
    return json.dumps(refused).encode() + b"\n"


def _key(request: dict[str, Any]) -> str | None:
    """The key of the picture that a line names; of several, those of other kinds are refused."""
    body = request.get("body")
    given = [body.get(name) for name in PICTURES.values()] if isinstance(body, dict) else []
    keys = (image.get("key") for image in given if isinstance(image, dict))
    return next((key for key in keys if isinstance(key, str)), None)
