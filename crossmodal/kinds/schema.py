"""The params of a model as a JSON schema: published by its worker, checked at submission.

Numbers, texts, choices and lists of these are checked. All else in a schema is accepted here, and
checked later by the model's own class.
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
UNTOLD = ("model", "metadata")  # left out: every model's params have them
NOTES = ("title", "description")  # of a property; without effect on validation
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
    """Return the JSON schema of a model's params that its worker publishes."""
    schema = params.model_json_schema()
    told = {
        name: _with_default(one, params.model_fields[name])
        for name, one in schema["properties"].items()
        if name not in UNTOLD
    }
    return {"type": "object", "properties": told, "required": schema.get("required", [])}


def _with_default(one: dict[str, Any], field: FieldInfo) -> dict[str, Any]:
    """Return a property with its default, also if that comes from a factory."""
    if field.default_factory is None:
        return one
    return one | {"default": to_jsonable_python(field.get_default(call_default_factory=True))}


def properties_of(schema: Schema | None) -> dict[str, Any]:
    """Return the properties of a schema; empty without a schema."""
    properties: Any = {} if schema is None else schema["properties"]
    return dict(properties)


def build_by(
    params: type[ItemParams], raw: Mapping[str, Any], where: str, beside: Iterable[str] = ()
) -> ItemParams:
    """Validate untrusted fields as params; fields named in `beside` are allowed, too.

    `where` is their place in error messages. Raises `InvalidParams`, naming every bad or unknown
    field.
    """
    check_fields(raw, dict.fromkeys([*params.model_fields, *beside]), where)
    return build(params, raw)


def class_by(kind: Kind, schema: Schema | None) -> type[ItemParams]:
    """Return a class of params that checks a schema; the kind's own class without one."""
    return kind.params if schema is None else _params(kind.name, json.dumps(schema, sort_keys=True))


@lru_cache(maxsize=256)
def _params(kind_name: str, schema_text: str) -> type[ItemParams]:
    """Return a class of params that checks a schema and its kind's fields."""
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
    """Return the Python type of a property's schema."""
    if "anyOf" in one:
        return Union[tuple(_type(part) for part in one["anyOf"])]  # noqa: UP007 - built at run time
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
