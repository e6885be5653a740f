"""The params of a model as a JSON schema: told by who has loaded it, checked by who submits.

A schema is read as far as params are numbers, texts, choices, or lists of these. What is more is
let through, and checked by the model's own class.
"""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, Union

from pydantic import Field, JsonValue, create_model
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from crossmodal.kinds.base import ItemParams, Kind, build
from crossmodal.kinds.fields import CLEANED, text_of
from crossmodal.kinds.registry import kind_named
from crossmodal.unknown import check_fields

Schema = Mapping[str, JsonValue]
UNTOLD = ("model", "metadata")  # what every model's params have
NOTES = ("title", "description")  # of a property, which change nothing
TYPES: Mapping[Any, Any] = {
    "integer": int,
    "number": float,
    "boolean": bool,
    "string": str,
    "null": None,
    "object": dict[str, Any],
}
LIMITS = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
    "minLength": "min_length",
    "maxLength": "max_length",
    "pattern": "pattern",
    "minItems": "min_length",
    "maxItems": "max_length",
}


def schema_of(params: type[ItemParams]) -> dict[str, JsonValue]:
    """What is told of a model's params."""
    schema = params.model_json_schema()
    told = {
        name: _with_default(one, params.model_fields[name])
        for name, one in schema["properties"].items()
        if name not in UNTOLD
    }
    return {"type": "object", "properties": told, "required": schema.get("required", [])}


def _with_default(one: dict[str, Any], field: FieldInfo) -> dict[str, Any]:
    """A property with its default, also where that is made anew for each."""
    if field.default_factory is None:
        return one
    return one | {"default": to_jsonable_python(field.get_default(call_default_factory=True))}


def properties_of(schema: Schema | None) -> dict[str, Any]:
    """The params that a schema names; none where there is no schema."""
    properties: Any = {} if schema is None else schema["properties"]
    return dict(properties)


def build_by(
    params: type[ItemParams], raw: Mapping[str, Any], where: str, beside: Iterable[str] = ()
) -> ItemParams:
    """Params from untrusted fields, at `where`, which have others `beside` them.

    Raises `InvalidParams`, naming every bad or unknown field.
    """
    check_fields(raw, dict.fromkeys([*params.model_fields, *beside]), where)
    return build(params, raw)


def class_by(kind: Kind, schema: Schema | None) -> type[ItemParams]:
    """A class that checks what a schema says; the kind's own where there is none."""
    return kind.params if schema is None else _params(kind.name, json.dumps(schema, sort_keys=True))


@lru_cache(maxsize=256)
def _params(kind_name: str, schema_text: str) -> type[ItemParams]:
    """A class that checks what a schema says, and what its kind does."""
    kind = kind_named(kind_name)
    schema = json.loads(schema_text)
    known = properties_of(schema_of(kind.params))
    fields: dict[str, Any] = {
        name: _field(one, name in schema["required"])
        for name, one in schema["properties"].items()
        if name != kind.picture and _said(one) != _said(known.get(name, {}))
    }
    return (
        create_model(kind.params.__name__, __base__=kind.params, **fields)
        if fields
        else kind.params
    )


def _said(one: Any) -> dict[str, Any]:
    return {name: value for name, value in one.items() if name not in NOTES}


def _field(one: dict[str, Any], is_required: bool) -> tuple[Any, Any]:
    default = ... if is_required else one.get("default")
    return _type(one), Field(default, description=one.get("description"))


def _type(one: dict[str, Any]) -> Any:
    """The type of what a property's schema allows."""
    if "anyOf" in one:
        return Union[tuple(_type(part) for part in one["anyOf"])]  # noqa: UP007 - it is made
    if "enum" in one:
        return Literal[tuple(one["enum"])]
    if "const" in one:
        return Literal[one["const"]]
    if one.get("format") == CLEANED:
        return text_of(one.get("minLength", 0), one["maxLength"])
    plain: Any = TYPES.get(one.get("type"), Any)
    if one.get("type") == "array":
        plain = list.__class_getitem__(_type(one.get("items", {})))
    limits = {ours: one[theirs] for theirs, ours in LIMITS.items() if theirs in one}
    return Annotated[plain, Field(**limits)] if limits else plain
