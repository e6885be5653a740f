"""Checks of arguments' types and ranges, with clear errors."""

import math
from collections.abc import Iterable
from enum import StrEnum
from numbers import Real
from typing import Any, TypeVar

from crossmodal.errors import InvalidParams
from crossmodal.kinds.task import Task, tasks
from crossmodal.unknown import shown

MAX_KEEP_S = 31_536_000  # a year
E = TypeVar("E", bound=StrEnum)


def check_text(name: str, value: Any) -> str:
    """Return `value`. Raises `InvalidParams` unless it is text."""
    if not isinstance(value, str):
        raise InvalidParams(f"{name} is {shown(value)}: give text")
    return value


def check_seconds(name: str, value: Any) -> float | None:
    """Return `value` as a float. Raises `InvalidParams` unless it is finite, >= 0, or None."""
    if value is None:
        return None
    if not isinstance(value, Real) or isinstance(value, bool):
        raise InvalidParams(f"{name} is {shown(value)}: give a number of seconds")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not 0 <= seconds < math.inf:
        raise InvalidParams(f"{name} is {shown(value)}: give a finite number of seconds, 0 or more")
    return seconds


def check_count(name: str, value: Any) -> int:
    """Return `value`. Raises `InvalidParams` unless it is a whole number >= 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidParams(f"{name} is {shown(value)}: give a whole number >= 1")
    return value


def check_priority(value: Any) -> int:
    """Return `value`. Raises `InvalidParams` unless it is -1, 0 or 1."""
    if isinstance(value, bool) or value not in (-1, 0, 1):
        raise InvalidParams(f"priority is {shown(value)}: give -1, 0 or 1")
    return int(value)


def check_keep(value: Any) -> float | None:
    """Return `value` as a float. Raises `InvalidParams` unless it is 1 s to a year, or None."""
    seconds = check_seconds("keep_s", value)
    if seconds is not None and not 1 <= seconds <= MAX_KEEP_S:
        raise InvalidParams(f"keep_s is {shown(value)}: give 1 to {MAX_KEEP_S} s")
    return seconds


def check_one_of(name: str, kind: type[E], value: Any) -> E:
    """Return the member of `kind` that a value is or names. Raises `InvalidParams`."""
    try:
        return kind(value)
    except ValueError as e:
        known = ", ".join(kind)
        raise InvalidParams(f"{name} is {shown(value)}: give one of {known}") from e


def check_task(value: Any) -> Task:
    """Return the task that a value is or names. Raises `InvalidParams`."""
    try:
        return Task(value)
    except (ValueError, TypeError) as e:
        raise InvalidParams(f"task is {shown(value)}: give one of {', '.join(tasks())}") from e


def check_several(name: str, value: Any, *, but: bool = False) -> Iterable[Any]:
    """Return `value`. Raises `InvalidParams` unless it is an iterable of several.

    `but` is true for an iterable that is a single value, such as text.
    """
    if but or not isinstance(value, Iterable):
        raise InvalidParams(f"{name} is {shown(value)}: give a list, also for a single one")
    return value
