"""What a call of OpenAI's client is refused with."""

from collections.abc import Callable
from typing import Any

from openai import APIError


def refusal(kind: type[APIError], call: Callable[[], object]) -> Any:
    """The error that a call ends with, which must be of this very kind."""
    try:
        call()
    except APIError as e:
        if type(e) is not kind:
            raise
        return e
    raise AssertionError("it was not refused")
