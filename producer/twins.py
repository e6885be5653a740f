"""Client methods made from calls: blocking for `Client`, awaited for `AsyncClient`.

Signature, docstring and types are written once, at the call.
"""

import inspect
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, get_args

from crossmodal.jobs.calls import Call

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")


class Runs(Protocol):
    """A blocking runner of calls."""

    def run(self, call: Call[T], /) -> T: ...
    def close(self) -> None: ...


def waited(method: Callable[Concatenate[Any, P], Call[T]]) -> Callable[Concatenate[Any, P], T]:
    """Return a method that runs this call of its object's `calls` and returns the result."""

    def twin(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        found: T = self.run(asked(self, method, *args, **kwargs))
        return found

    return as_twin(twin, method)


def awaited(
    method: Callable[Concatenate[Any, P], Call[T]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Return the asynchronous twin of such a method."""

    async def twin(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        found: T = await self.run(asked(self, method, *args, **kwargs))
        return found

    return as_twin(twin, method)


def asked(
    client: Any, method: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
) -> R:
    """Return what this method of `client.calls`, which may be a subclass, makes."""
    name = method.__name__
    try:
        made: R = getattr(client.calls, name)(*args, **kwargs)
    except TypeError as e:
        _, is_of_arguments, said = str(e).partition(f"{name}() ")
        if not is_of_arguments:
            raise
        raise TypeError(f"{type(client).__name__}.{name}() {said}") from None
    return made


def as_twin(
    twin: Callable[Q, R], method: Callable[..., Any], returns: Any = None
) -> Callable[Q, R]:
    """Give `twin` the name, docstring and signature of `method`, for `help` and editors.

    Its return annotation is the type of the call's result, or `returns`.
    """
    named: Any = wraps(method)(twin)
    hints = method.__annotations__
    found = returns if returns is not None else get_args(hints["return"])[-1]
    named.__signature__ = inspect.signature(method).replace(return_annotation=found)
    named.__annotations__ = {**hints, "return": found}
    return twin
