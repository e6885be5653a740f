"""A file of requests as it is taken: what its lines may name is decided then, and not again.

When a batch is taken up again its lines must say the same, or its messages would be others.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crossmodal.errors import InvalidParams
from producer.jsonl import REFUSED, parsed

MOST_LINES = 100_000


def check_lines(source: Path, target: Path, may_name: Callable[[str], bool]) -> None:
    """Copy a file; in the copy, a line with a picture that may not be named says so.

    Raises `InvalidParams` for one with too many lines, before any of them is looked at.
    """
    with source.open("rb") as lines:
        count = sum(1 for _ in lines)
    if count > MOST_LINES:
        raise InvalidParams(
            f"the file has {count} lines, {MOST_LINES} are allowed: make several of it"
        )
    with source.open("rb") as lines, target.open("wb") as checked:
        for line in lines:
            checked.write(_checked(line, may_name) if line.strip() else line)


def _checked(line: bytes, may_name: Callable[[str], bool]) -> bytes:
    try:
        request = parsed(line)
    except InvalidParams:  # such a line fails alone
        return line
    key = _key(request)
    if key is None or may_name(key):
        return line
    kept = {name: request[name] for name in ("custom_id", "url") if name in request}
    refused = kept | {REFUSED: f"there is no blob {key[:200]!r} of this API key"}
    return json.dumps(refused).encode() + b"\n"


def _key(request: dict[str, Any]) -> str | None:
    body = request.get("body")
    image = body.get("image") if isinstance(body, dict) else None
    key = image.get("key") if isinstance(image, dict) else None
    return key if isinstance(key, str) else None
