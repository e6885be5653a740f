"""The surfaces of what listens, by path, and how many cases each had."""

import json
import re
from collections import Counter
from pathlib import Path

_BY_PATH = {
    "streams": r"/v1/(jobs/[^/]*/)?events",
    "blobs": r"/v1/(blobs|uploads)",
    "batches": r"/v1/(batches|files)",
    "OpenAI": r"(/v1)?/(images|chat)/",
    "A1111": r"/sdapi/",
    "native": r"/(v1/|livez|readyz|metrics)",
}


def surface_of(path: str) -> str:
    """What a path of the OpenAPI document belongs to."""
    return next(name for name, pattern in _BY_PATH.items() if re.match(pattern, path))


def count(counts: Counter[str], file: Path) -> None:
    """Add to the cases that were counted before, by whichever process."""
    before = Counter(json.loads(file.read_text())) if file.exists() else Counter[str]()
    file.write_text(json.dumps(before + counts))
