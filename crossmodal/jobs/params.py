"""What one job asks for."""

import hashlib
import json
import re
import reprlib
import secrets
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
)

from crossmodal.errors import InvalidParams, InvalidPrompt
from crossmodal.invalid import explained
from crossmodal.jobs.names import Task, check_batch_id
from crossmodal.jobs.origin import Webhook

MAX_PROMPT = 1_000  # characters
MAX_RAW_PROMPT = 4 * MAX_PROMPT  # with spaces and marks that cleaning removes
MAX_METADATA = 2_048  # bytes of JSON
MAX_DEPTH = 32  # of metadata
MAX_SEED = 2**32 - 1
MAX_ITEMS = 1_024  # of a message
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


Metadata = Annotated[JsonValue, AfterValidator(_checked_metadata)]


class _Params(BaseModel):
    # Strict: a string is no number. Fields that a newer version sends are ignored.
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Txt2ImgParams(_Params):
    """`count` pictures of `prompt`; picture i is drawn with seed + i.

    `temperature` is the spread of the latent: 0 gives the likeliest picture, 1 the spread
    of the training data. The client fixes `seed` when it is absent, so that a job that is
    run again makes the same pictures.
    """

    prompt: Annotated[str, AfterValidator(_checked_prompt)]
    count: int = Field(default=1, ge=1, le=16)
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    temperature: float = Field(default=1.0, ge=0, le=2)
    metadata: Metadata = None


class Img2TxtParams(_Params):
    """The `count` best captions of `image` that a beam search of `beam_width` finds."""

    image: BlobRef
    count: int = Field(default=1, ge=1, le=5)
    beam_width: int = Field(default=4, ge=1, le=10)
    max_words: int = Field(default=40, ge=1, le=64)
    metadata: Metadata = None


class BulkParams(_Params):
    """The `items` of one message, packed in the blob `input`: number `number` of a `batch`.

    No message of the batch has more than `most`, so that a rerun packs the same messages.
    """

    kind: Literal["txt2img", "img2txt"]
    input: BlobRef
    items: int = Field(ge=1, le=MAX_ITEMS)
    batch: Annotated[str, AfterValidator(check_batch_id)]
    number: int = Field(ge=0, lt=2**31)
    most: int = Field(default=MAX_ITEMS, ge=1, le=MAX_ITEMS)
    metadata: None = None


ItemParams = Txt2ImgParams | Img2TxtParams
Params = ItemParams | BulkParams
_ITEMS: dict[Task, TypeAdapter[Any]] = {
    Task.TXT2IMG: TypeAdapter(list[Txt2ImgParams]),
    Task.IMG2TXT: TypeAdapter(list[Img2TxtParams]),
}
P = TypeVar("P", Txt2ImgParams, Img2TxtParams, BulkParams)


def parse_params(task: Task, raw: Mapping[str, Any]) -> Params:
    """The params of a job of kind `task`. Raises `InvalidParams`, naming every bad field."""
    if task.is_bulk:
        return build_params(BulkParams, {"kind": task.of_items.value, **raw})
    return parse_item(task, raw)


def parse_item(task: Task, raw: Mapping[str, Any]) -> ItemParams:
    """The params of what one run of a model is for. Raises `InvalidParams`."""
    if task.of_items is Task.TXT2IMG:
        return build_params(Txt2ImgParams, raw)
    return build_params(Img2TxtParams, raw)


def parse_items(task: Task, raw: Iterable[Mapping[str, Any]]) -> list[ItemParams]:
    """The same for many, faster. Raises `InvalidParams` where one of them is wrong."""
    try:
        params: list[ItemParams] = _ITEMS[task.of_items].validate_python(raw)
        return params
    except ValidationError as e:
        raise _invalid(e) from e


def build_params(kind: type[P], raw: Mapping[str, Any]) -> P:
    """`kind` from untrusted fields. Raises `InvalidParams`, naming every bad field."""
    try:
        return kind.model_validate(dict(raw))
    except ValidationError as e:
        raise _invalid(e) from e


def task_of(params: Params) -> Task:
    """The kind of job that such params are for."""
    if isinstance(params, BulkParams):
        return Task(params.kind).in_bulk
    return Task.TXT2IMG if isinstance(params, Txt2ImgParams) else Task.IMG2TXT


def fix_seed(params: Params) -> Params:
    """The params with a random seed where they had none, so that every attempt draws the same."""
    if isinstance(params, Txt2ImgParams) and params.seed is None:
        return params.model_copy(update={"seed": secrets.randbelow(MAX_SEED + 1)})
    return params


def _invalid(error: ValidationError) -> InvalidParams:
    problems = "; ".join(_describe(one) for one in error.errors())
    return InvalidParams(f"invalid params: {problems}")


def _describe(error: Any) -> str:
    return f"{explained(error, 'params')} (got {reprlib.repr(error.get('input'))})"


def fingerprint(
    task: Task, params: Params, expires_in_s: float | None = None, webhook: Webhook | None = None
) -> str:
    """A digest that is equal for equal requests, whatever seed was fixed for them."""
    told = None if webhook is None else [webhook.url, *sorted(webhook.events)]
    canonical = json.dumps(
        [task, params.model_dump(mode="json"), expires_in_s, told], sort_keys=True
    )
    return hashlib.sha256(canonical.encode()).hexdigest()
