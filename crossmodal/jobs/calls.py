"""Calls to Redis as values: the commands to send, and how to interpret the replies.

A call is written as a generator. It yields a command, or a list of commands for one pipeline,
receives the reply or the list of replies, and returns the result:

    @call
    def holds(self, attempt: Attempt) -> Steps[bool]:
        state, number = yield redis.hmget(key, "state", "attempt")
        return state == JobState.RUNNING and number == str(attempt.number)

A runner runs it, blocking (`runners.Runner`) or on an event loop (`runners.AsyncRunner`). A call
holds no connection and may be run again. Calls compose: `job = yield from self.get(job_id)`.
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
    """A command in redis-py's form; `options` are for its parser of the reply."""

    args: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Script:
    """An atomic run of one of the ledger's Lua scripts."""

    name: str
    keys: tuple[Any, ...]
    args: tuple[Any, ...]


@dataclass(frozen=True)
class Atomic:
    """Commands of one transaction; the reply is a list."""

    commands: list[Command]


@dataclass(frozen=True)
class Blocking:
    """A function that blocks on something other than Redis, such as the object store.

    On an event loop it runs in a thread. The reply is its return value.
    """

    function: Callable[[], Any]


@dataclass(frozen=True)
class Pause:
    """A pause of `seconds`; there is no reply."""

    seconds: float


@dataclass(frozen=True)
class Waiting:
    """A command that blocks in Redis, such as XREAD, sent on its own connection."""

    command: Command


Step = Command | Script | Atomic | Waiting | Blocking | Pause | list[Command | Script]
Steps = Generator[Step, Any, T]


class Call(Generic[T_co]):
    """A sequence of steps that a runner runs to get a result."""

    def __init__(self, begin: Callable[[], Steps[T_co]]) -> None:
        self._begin = begin

    def __iter__(self) -> Steps[T_co]:
        """Return a new generator of the steps."""
        return self._begin()


def call(steps: Callable[P, Steps[T]]) -> Callable[P, Call[T]]:
    """Make a generator function return a `Call`, which can be run repeatedly."""

    @wraps(steps)
    def made(*args: P.args, **kwargs: P.kwargs) -> Call[T]:
        steps(*args, **kwargs)  # runs nothing; raises TypeError for wrong arguments
        return Call(lambda: steps(*args, **kwargs))

    return made


class _Commands(CoreCommands):
    """redis-py's command methods, which here build commands instead of sending them."""

    def execute_command(self, *args: Any, **options: Any) -> Command:
        return Command(args, options)


redis: Any = _Commands()
"""Builds commands: `redis.hgetall(key)` is a `Command`."""


def undecoded(command: Command) -> Command:
    """Return the same command with an undecoded reply."""
    return Command(command.args, command.options | {NEVER_DECODE: True})
