"""Checks for unknown fields, with suggestions of similar known ones."""

import reprlib
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Any

from crossmodal.errors import InvalidParams

MAX_NAMED = 5
ALIKE = 0.6  # similarity from 0 to 1


def check_fields(given: Iterable[object], known: Collection[str], where: str = "") -> None:
    """Raise `InvalidParams` for unknown fields of the object at `where`."""
    given = list(given)
    if said := unknown_fields(given, known):
        first = next(str(name) for name in given if name not in known)
        raise InvalidParams(f"{where}: {said}" if where else said, first[:100])


def unknown_fields(given: Iterable[object], known: Collection[str]) -> str:
    """Return a message that names the unknown fields; empty if there are none."""
    unknown = [str(name) for name in given if name not in known]
    said = "; ".join(_said(name, known) for name in unknown[:MAX_NAMED])
    return f"{said}; …" if len(unknown) > MAX_NAMED else said


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most similar to `name`; None if none is similar."""
    found = get_close_matches(name[:100].lower(), list(known), 1, ALIKE)
    return found[0] if found else None


def shown(value: Any) -> str:
    """Return a value and its type, shortened for a message."""
    return "None" if value is None else f"{reprlib.repr(value)} ({type(value).__name__})"


def _said(name: str, known: Collection[str]) -> str:
    near = nearest(name, known)
    remedy = f"did you mean {near!r}?" if near else f"known: {', '.join(known) or 'none'}"
    return f"unknown field {name[:100]!r}: {remedy}"
