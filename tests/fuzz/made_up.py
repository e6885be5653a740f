"""Odd and hostile values."""

import random
from typing import Any

TEXTS = (
    "",
    " ",
    "0",
    "-1",
    "null",
    "..",
    "../../etc/passwd",
    "%2e%2e%2f",
    "a" * 300,
    "\u0000",
    "\u202e",
    "é",
    "💥",
    "'; DROP TABLE jobs",
    "<script>alert(1)</script>",
    "{{7*7}}",
    "*",
    "?",
    "[",
    "\\",
    "file:///etc/passwd",
    "http://127.0.0.1:1/",
    "data:image/png;base64,AAAA",
    "1e999",
)
NUMBERS = (0, -1, 1, 2**31, 2**63, -(2**63), 1.5, 1e308, 10**40)


def value(rng: random.Random, names: list[str], depth: int = 0) -> Any:
    """Return random JSON; `names` are strings that have a meaning here."""
    kinds = ["text", "text", "name", "number", "odd"] + (["list", "object"] if depth < 3 else [])
    kind = rng.choice(kinds)
    if kind == "text":
        return rng.choice(TEXTS)
    if kind == "name":
        return rng.choice(names)
    if kind == "number":
        return rng.choice(NUMBERS)
    if kind == "odd":
        return rng.choice([None, True, False])
    if kind == "list":
        return [value(rng, names, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(names): value(rng, names, depth + 1) for _ in range(rng.randrange(4))}


def header(rng: random.Random, names: list[str]) -> str:
    """Return a random header value."""
    text = str(value(rng, names, 3))
    return text.encode("ascii", errors="replace").decode().replace("\0", "?").strip()


def path(text: str) -> str:
    """Return a text as a part of a path, however odd."""
    return "".join(
        c if " " < c < "\x7f" and c not in "#?%" else f"%{ord(c) % 256:02x}" for c in text
    )
