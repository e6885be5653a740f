"""The definition of a kind: the schema of its params, and the type of its output.

All that depends on a kind is derived from this: validation of params, HTTP's requests, options of
the command line, which param is a picture that is stored, decoded and kept as long as its job, and
how the output is stored. A kind is independent of models.
"""

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from crossmodal.errors import InvalidParams
from crossmodal.invalid import explained
from crossmodal.kinds.fields import BlobRef, ModelName

Output = Literal["images", "captions"]
"""The output of a kind: pictures or texts."""

RESERVED = frozenset(
    {  # arguments that clients, HTTP and commands have beside params
        "params",
        "idempotency_key",
        "expires_in_s",
        "origin",
        "task",
        "webhook_url",
        "webhook_events",
        "out",
        "no_wait",
        "timeout_s",
        "as_json",
    }
)

_JSON: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)


def _is_json(value: object) -> bool:
    try:
        _JSON.validate_python(value)
    except ValidationError:
        return False
    return True


P = TypeVar("P", bound=BaseModel)


class StrictParams(BaseModel):
    """The base of all params. Strict: a string is not accepted as a number."""

    # A newer version may send more fields; they are ignored.
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    if TYPE_CHECKING:  # each subclass declares it, for its place among the fields
        metadata: JsonValue


class ItemParams(StrictParams):
    """The params of one run of a model: a job, or an item of a batch job.

    Fields that the kind does not declare are kept: they are params of the model.
    """

    model_config = ConfigDict(extra="allow")
    model: ModelName = None

    @model_validator(mode="after")
    def _is_json(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if not _is_json(value):
                raise PydanticCustomError("no_json", f"{name}: not a JSON value")
        return self

    if TYPE_CHECKING:
        count: int


@dataclass(frozen=True)
class Kind:
    """A kind of job.

    `params` has at least `count`, the number of outputs, and `metadata`. A field `seed` is fixed at
    submission, or by the batch job for its items; a field of type `BlobRef` is the picture, at most
    one. `about` describes the kind in a few words, `example` is a sample submission.
    """

    name: str
    params: type[ItemParams]
    output: Output
    about: str
    example: Mapping[str, JsonValue]

    def __post_init__(self) -> None:
        fields = self.params.model_fields
        if missing := {"count", "metadata"} - set(fields):
            raise TypeError(f"the params of {self.name} have no {' and no '.join(missing)}")
        if taken := RESERVED & set(fields):
            raise TypeError(
                f"the params of {self.name} use reserved names: {', '.join(sorted(taken))}"
            )
        if any(BlobRef in get_args(field.annotation) for field in fields.values()):
            raise TypeError(f"the picture of {self.name}'s params is optional: make it required")
        if sum(field.annotation is BlobRef for field in fields.values()) > 1:
            raise TypeError(f"the params of {self.name} have more than one picture")

    @cached_property
    def fields(self) -> dict[str, FieldInfo]:
        """The params in display order: the kind's own, then inherited ones."""
        fields, bases = self.params.model_fields, self.params.__bases__
        of_bases = {name for base in bases for name in getattr(base, "model_fields", ())}
        return {name: fields[name] for name in sorted(fields, key=of_bases.__contains__)}

    @cached_property
    def picture(self) -> str | None:
        """The name of the picture's field; None if the kind takes none."""
        fields = self.params.model_fields.items()
        return next((name for name, field in fields if field.annotation is BlobRef), None)

    @cached_property
    def is_seeded(self) -> bool:
        """Whether the output depends on a seed."""
        return "seed" in self.params.model_fields

    def image_of(self, params: ItemParams) -> BlobRef | None:
        """Return the picture that params refer to; None if the kind takes none."""
        if self.picture is None:
            return None
        ref: BlobRef = getattr(params, self.picture)
        return ref

    def build(self, raw: Mapping[str, Any]) -> ItemParams:
        """Validate untrusted fields as params. Raises `InvalidParams`, naming every bad field."""
        return build(self.params, raw)


def build(params: type[P], raw: Mapping[str, Any]) -> P:
    """Validate untrusted fields as `params`. Raises `InvalidParams`, naming every bad field."""
    try:
        return params.model_validate(dict(raw))
    except ValidationError as e:
        raise _invalid(e) from e


def build_many(params: type[P], raws: Iterable[Mapping[str, Any]]) -> list[P]:
    """Validate many, faster than one by one. Raises `InvalidParams` if any is wrong."""
    try:
        return _many(params).validate_python(raws)  # type: ignore[no-any-return]
    except ValidationError as e:
        raise _invalid(e) from e


@lru_cache(maxsize=256)
def _many(params: type[BaseModel]) -> TypeAdapter[Any]:
    return TypeAdapter(list[params])  # type: ignore[valid-type]


def _invalid(error: ValidationError) -> InvalidParams:
    errors = error.errors()
    problems = "; ".join(_describe(one) for one in errors)
    first = next((str(one["loc"][0])[:100] for one in errors if one["loc"]), None)
    return InvalidParams(f"invalid params: {problems}", first)


def _describe(error: Any) -> str:
    return f"{explained(error, 'params')} (got {reprlib.repr(error.get('input'))})"
