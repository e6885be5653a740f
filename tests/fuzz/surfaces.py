"""The surfaces of the services, by path, and the number of cases of each."""

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
    """Return the surface of a path of the OpenAPI document."""
    return next(name for name, pattern in _BY_PATH.items() if re.match(pattern, path))


def count(counts: Counter[str], file: Path) -> None:
    """Add to the counts in a file, whichever process wrote it."""
    before = Counter(json.loads(file.read_text())) if file.exists() else Counter[str]()
    file.write_text(json.dumps(before + counts))
