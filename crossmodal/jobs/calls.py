"""Calls to Redis as values: what is sent, and how the replies are read.

A call is written as a generator. It yields a command, or a list of commands that travel together,
is sent the reply or the list of replies, and returns what they mean:

    @call
    def holds(self, attempt: Attempt) -> Steps[bool]:
        state, number = yield redis.hmget(key, "state", "attempt")
        return state == JobState.RUNNING and number == str(attempt.number)

Whoever has a connection runs it, waiting (`runners.Runner`) or on an event loop
(`runners.AsyncRunner`). A call holds no connection and may be run again. Calls are made of
calls: `job = yield from self.get(job_id)`.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar

from redis.client import NEVER_DECODE
from redis.commands.core import CoreCommands

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Command:
    """A command as redis-py would send it; `options` tell it how to read the reply."""

    args: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Script:
    """A run of one of the ledger's Lua scripts, which reads and writes at once."""

    name: str
    keys: tuple[Any, ...]
    args: tuple[Any, ...]


@dataclass(frozen=True)
class Atomic:
    """Commands that are carried out with no other between them; the reply is a list."""

    commands: list[Command]


@dataclass(frozen=True)
class Blocking:
    """A function that waits for something else than Redis, as the object store or a lookup.

    An event loop has it run in a thread. The reply is what it returns.
    """

    function: Callable[[], Any]


@dataclass(frozen=True)
class Pause:
    """Nothing is asked for so many seconds; there is no reply."""

    seconds: float


@dataclass(frozen=True)
class Waiting:
    """A command that waits in Redis for something to happen, on a connection of its own."""

    command: Command


Step = Command | Script | Atomic | Waiting | Blocking | Pause | list[Command | Script]
Steps = Generator[Step, Any, T]


class Call(Generic[T_co]):
    """What to ask of Redis, step by step, and what it comes to."""

    def __init__(self, begin: Callable[[], Steps[T_co]]) -> None:
        self._begin = begin

    def __iter__(self) -> Steps[T_co]:
        """The steps, from the first one on."""
        return self._begin()


def call(steps: Callable[P, Steps[T]]) -> Callable[P, Call[T]]:
    """Have a generator function return a `Call` that can be run, and run again."""

    @wraps(steps)
    def made(*args: P.args, **kwargs: P.kwargs) -> Call[T]:
        steps(*args, **kwargs)  # begins nothing, but raises TypeError for wrong arguments here
        return Call(lambda: steps(*args, **kwargs))

    return made


class _Commands(CoreCommands):
    """redis-py's methods, which know how each command is written; here nothing is sent."""

    def execute_command(self, *args: Any, **options: Any) -> Command:
        return Command(args, options)


redis: Any = _Commands()
"""Makes commands: `redis.hgetall(key)` is a `Command`."""


def undecoded(command: Command) -> Command:
    """The same command, whose reply stays bytes."""
    return Command(command.args, command.options | {NEVER_DECODE: True})
