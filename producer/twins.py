"""Methods made of calls: the same call is run by the client, and awaited by its twin.

Signatures, sentences and types are those of the call, which alone are written down.
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
    """What runs calls, and waits for what they come to."""

    def run(self, call: Call[T], /) -> T: ...
    def close(self) -> None: ...


def waited(method: Callable[Concatenate[Any, P], Call[T]]) -> Callable[Concatenate[Any, P], T]:
    """The method that makes this call of its object's `calls`, and waits for what it comes to."""

    def twin(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        found: T = self.run(asked(self, method, *args, **kwargs))
        return found

    return as_twin(twin, method)


def awaited(
    method: Callable[Concatenate[Any, P], Call[T]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """The same for an event loop."""

    async def twin(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        found: T = await self.run(asked(self, method, *args, **kwargs))
        return found

    return as_twin(twin, method)


def asked(
    client: Any, method: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
) -> R:
    """What this method of the client's calls makes; they may be of a kind of their own."""
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
    """`twin` with the name, the sentence and the signature of `method`, for `help` and editors.

    It returns what the call comes to, or `returns`.
    """
    named: Any = wraps(method)(twin)
    hints = method.__annotations__
    found = returns if returns is not None else get_args(hints["return"])[-1]
    named.__signature__ = inspect.signature(method).replace(return_annotation=found)
    named.__annotations__ = {**hints, "return": found}
    return twin
