"""What params are made of: texts that are cleaned, seeds, metadata, and bytes in the store."""

import json
import re
import unicodedata
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    WithJsonSchema,
)

from crossmodal.errors import InvalidPrompt

MAX_PROMPT = 1_000  # characters
MAX_RAW_PROMPT = 4 * MAX_PROMPT  # with spaces and marks that cleaning removes
MAX_METADATA = 2_048  # bytes of JSON
MAX_DEPTH = 32  # of metadata
MAX_SEED = 2**32 - 1
_SPACES = re.compile(r"\s+")


class BlobRef(BaseModel):
    """Bytes in the object store; where `sha256` is given, reading checks it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str = Field(min_length=1, max_length=1_024)
    media_type: str = Field(default="application/octet-stream", pattern=r"^[!-~]{1,127}$")
    size: int | None = Field(default=None, ge=0, lt=2**63)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


def clean_prompt(prompt: str) -> str:
    """NFC-normalised, without control characters, every run of white space one space."""
    if prompt.isascii() and prompt.isprintable():  # as most are, and then it is quick
        return " ".join(prompt.split())
    kept = (" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in prompt)
    return _SPACES.sub(" ", unicodedata.normalize("NFC", "".join(kept))).strip()


def _checked_prompt(prompt: str) -> str:
    if len(prompt) > MAX_RAW_PROMPT:  # cleaning takes time by the square of some texts' length
        raise InvalidPrompt(f"the prompt has {len(prompt)} characters: shorten it to {MAX_PROMPT}")
    cleaned = clean_prompt(prompt)
    if not cleaned:
        raise InvalidPrompt("the prompt is empty: describe the picture in at least one word")
    if len(cleaned) > MAX_PROMPT:
        raise InvalidPrompt(
            f"the prompt has {len(cleaned)} characters, {MAX_PROMPT} are allowed: shorten it"
        )
    return cleaned


def _checked_metadata(metadata: JsonValue) -> JsonValue:
    if metadata is None:
        return None
    size = len(json.dumps(metadata, ensure_ascii=False, allow_nan=False).encode())
    if size > MAX_METADATA:
        raise ValueError(f"is {size} bytes of JSON, {MAX_METADATA} are allowed")
    if _is_deeper(metadata, MAX_DEPTH):
        raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")
    return metadata


def _is_deeper(value: JsonValue, levels: int) -> bool:
    if not isinstance(value, list | dict):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(one, levels - 1) for one in inside)


# Its length counts once it is cleaned.
_PROMPT_SCHEMA = {"type": "string", "minLength": 1, "maxLength": MAX_PROMPT}

Prompt = Annotated[str, AfterValidator(_checked_prompt), WithJsonSchema(_PROMPT_SCHEMA)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Metadata = Annotated[JsonValue, AfterValidator(_checked_metadata)]
