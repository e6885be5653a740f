"""Types of params' fields: cleaned texts, seeds, metadata, and references to blobs."""

import json
import re
import unicodedata
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, WithJsonSchema
from pydantic.config import JsonDict

from crossmodal.errors import InvalidPrompt, quoted

MAX_PROMPT = 1_000  # characters
RAW = 4  # a text may be this many times longer before cleaning removes spaces and marks
CLEANED = "cleaned-text"  # the format of cleaned texts in JSON schemas
MAX_METADATA = 2_048  # bytes of JSON
MAX_DEPTH = 32  # of metadata
MAX_SEED = 2**32 - 1
MAX_MODEL_NAME = 64
MODEL_NAME_RULE = (
    f"1 to {MAX_MODEL_NAME} letters, digits, '.', '_' or '-'; the last part, after any '.', may "
    "not be 'bulk' or 'pidbox'"
)
_SPACES = re.compile(r"\s+")
_MODEL_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_MODEL_NAME - 1}}}")
_OTHER_QUEUES = (".bulk", ".pidbox")  # suffixes of queues that are reserved


class BlobRef(BaseModel):
    """A reference to a blob in the object store; reads check its `sha256`, if given."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str = Field(min_length=1, max_length=1_024)
    media_type: str = Field(default="application/octet-stream", pattern=r"^[!-~]{1,127}$")
    size: int | None = Field(default=None, ge=0, lt=2**63)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


def clean_prompt(prompt: str) -> str:
    """Normalize a prompt: NFC, no control characters, every run of white space one space."""
    if prompt.isascii() and prompt.isprintable():  # the usual case, and the fast path
        return " ".join(prompt.split())
    kept = (" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in prompt)
    return _SPACES.sub(" ", unicodedata.normalize("NFC", "".join(kept))).strip()


def _checked_prompt(prompt: str, least: int = 1, most: int = MAX_PROMPT) -> str:
    if len(prompt) > RAW * most:  # cleaning takes quadratic time for some texts
        said = f"the prompt has {len(prompt)} characters: shorten it to {most}"
        raise InvalidPrompt(said, "prompt")
    cleaned = clean_prompt(prompt)
    if len(cleaned) < least:
        said = "the prompt is empty: describe the picture in at least one word"
        raise InvalidPrompt(said, "prompt")
    if len(cleaned) > most:
        raise InvalidPrompt(
            f"the prompt has {len(cleaned)} characters, {most} are allowed: shorten it", "prompt"
        )
    return cleaned


def is_model_name(name: str) -> bool:
    """Return whether a model may have this name, which becomes part of its queues' names."""
    return bool(_MODEL_NAME.fullmatch(name)) and not f".{name}".endswith(_OTHER_QUEUES)


def _checked_model_name(name: str) -> str:
    if not is_model_name(name):
        raise ValueError(f"{quoted(name[:100])} is not a valid model name: use {MODEL_NAME_RULE}")
    return name


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


def _schema(least: int, most: int) -> JsonDict:
    """Return the JSON schema of a text whose limits hold after cleaning."""
    return {"type": "string", "format": CLEANED, "minLength": least, "maxLength": most}


def text_of(least: int, most: int) -> Any:
    """Return the type of a text that is cleaned as prompts are, then limited in characters."""
    check = AfterValidator(partial(_checked_prompt, least=least, most=most))
    return Annotated[str, check, WithJsonSchema(_schema(least, most))]


Prompt = Annotated[str, AfterValidator(_checked_prompt), WithJsonSchema(_schema(1, MAX_PROMPT))]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Metadata = Annotated[JsonValue, AfterValidator(_checked_metadata)]

_NAME_SCHEMA = {"type": "string", "minLength": 1, "maxLength": MAX_MODEL_NAME}
NameOfModel = Annotated[str, AfterValidator(_checked_model_name), WithJsonSchema(_NAME_SCHEMA)]
ModelName = Annotated[
    NameOfModel | None,
    Field(
        exclude_if=lambda name: name is None,
        description="The model's name; by default, the default model.",
    ),
]
