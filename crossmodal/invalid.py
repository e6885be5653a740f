"""What pydantic finds wrong, in words for whoever has sent it."""

from collections.abc import Mapping
from typing import Any

MOST = 300  # characters of what is wrong
MOST_WHERE = 100  # ... and of where: a value may be nested deeply


def explained(error: Mapping[str, Any], whole: str) -> str:
    """Where an error is, and what; one that has no place is in the `whole`."""
    where = ".".join(str(part) for part in error["loc"]) or whole
    return f"{where if len(where) <= MOST_WHERE else where[:MOST_WHERE] + '…'}: {words(error)}"


def words(error: Mapping[str, Any]) -> str:
    """What is wrong, without pydantic's name for the error of a validator of ours."""
    if error["type"] in ("model_type", "model_attributes_type"):  # else it names a class of ours
        return "Input should be an object"
    said = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return said if len(said) <= MOST else said[:MOST] + "…"
