"""Pydantic's validation errors as messages for the sender."""

from collections.abc import Mapping
from typing import Any

MOST = 300  # characters of the message
MOST_WHERE = 100  # ... and of the location: a value may be nested deeply


def explained(error: Mapping[str, Any], whole: str) -> str:
    """Return an error's location and message; `whole` names the location if it has none."""
    where = ".".join(str(part) for part in error["loc"]) or whole
    return f"{where if len(where) <= MOST_WHERE else where[:MOST_WHERE] + '…'}: {words(error)}"


def words(error: Mapping[str, Any]) -> str:
    """Return an error's message without the prefixes that pydantic adds."""
    if error["type"] in ("model_type", "model_attributes_type"):  # else it names an internal class
        return "Input should be an object"
    said = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return said if len(said) <= MOST else said[:MOST] + "…"
