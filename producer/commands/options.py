"""Command-line arguments and options, derived from the params of a kind."""

from collections.abc import Iterator
from inspect import Parameter
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from crossmodal.kinds.base import Kind

SHORT = {"count": "-n"}


def takes_several(kind: Kind) -> bool:
    """Whether a kind's command takes many pictures: it captions, and needs nothing else."""
    needed = [name for name, field in kind.params.model_fields.items() if field.is_required()]
    return kind.output == "captions" and needed == [kind.picture]


def parameters_of(kind: Kind) -> Iterator[Parameter]:
    """Yield required params as arguments, all others as options."""
    for name, field in kind.fields.items():
        if name == "metadata":
            continue
        if field.is_required():
            yield _parameter(name, _type_of(kind, name), typer.Argument(**_argument(name, field)))
        elif field.annotation is bool and field.default is True:
            negated = typer.Option(*_flags(f"no_{name}"), help=field.description, callback=_not)
            yield _parameter(name, bool, negated, False)
        else:
            option = typer.Option(*_flags(name), help=field.description, **_bounds(field))
            yield _parameter(name, _type_of(kind, name), option, field.default)


def _not(value: bool) -> bool:
    return not value


def _parameter(name: str, kind: Any, how: Any, default: Any = Parameter.empty) -> Parameter:
    annotation = Annotated[kind, how]
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _type_of(kind: Kind, name: str) -> Any:
    if name == kind.picture:
        return list[Path] if takes_several(kind) else Path
    return _plain(kind.params.model_fields[name].annotation)


def _plain(annotation: Any) -> Any:
    """Return a type without pydantic's annotations."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        plain = [_plain(one) for one in get_args(annotation)]
        return Union[tuple(plain)]  # noqa: UP007 - it is made of a list
    return annotation


def _argument(name: str, field: FieldInfo) -> dict[str, Any]:
    return {"help": field.description, "metavar": name.upper()}


def _flags(name: str) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    return [SHORT[name], flag] if name in SHORT else [flag]


def _bounds(field: FieldInfo) -> dict[str, Any]:
    """Return the min and max, which the command's help shows."""
    return {
        name: getattr(one, limit)
        for one in field.metadata
        for name, limit in (("min", "ge"), ("max", "le"))
        if hasattr(one, limit)
    }
