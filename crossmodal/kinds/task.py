"""Celery's tasks: one for each kind and lane."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from crossmodal.errors import InvalidParams
from crossmodal.kinds.base import Kind
from crossmodal.kinds.registry import kinds

BULK = ".bulk"  # suffix of tasks whose jobs are bulk messages


class Task(str):
    """A kind in one of its two lanes, with one instance each.

    A bulk task's job is one message with many items, each of which could be a job of its own.
    `Task(name)` raises `ValueError` for an unknown name.
    """

    kind: Kind
    is_bulk: bool

    def __new__(cls, name: str) -> Self:
        if (found := _by_name().get(name)) is None:
            raise ValueError(f"there is no task {name!r}; known tasks are {', '.join(tasks())}")
        return found  # type: ignore[return-value] # it has no subclass

    def __reduce__(self) -> tuple[Any, ...]:
        return Task, (str(self),)

    @property
    def celery_name(self) -> str:
        return f"crossmodal.{self}"

    @property
    def of_items(self) -> "Task":
        """The task of a bulk job's items; for any other task, itself."""
        return Task(self.kind.name)

    @property
    def in_bulk(self) -> "Task":
        """The bulk task of such items."""
        return Task(self.kind.name + BULK)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "enum": [str(task) for task in tasks()]}


def tasks() -> Iterator[Task]:
    """Return all tasks: those of single jobs, then bulk ones."""
    return iter(_by_name().values())


def parse_task(name: object) -> Task:
    """Return the task named `name`. Raises `InvalidParams` if there is none."""
    try:
        return Task(str(name))
    except ValueError as e:
        raise InvalidParams(str(e)) from e


@cache
def _by_name() -> Mapping[str, Task]:
    made = [_made(kind, is_bulk) for is_bulk in (False, True) for kind in kinds().values()]
    return {str(task): task for task in made}


def _made(kind: Kind, is_bulk: bool) -> Task:
    task = str.__new__(Task, kind.name + BULK * is_bulk)
    task.kind, task.is_bulk = kind, is_bulk
    return task
