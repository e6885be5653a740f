"""Runners of calls: blocking, one at a time, or concurrently on an event loop."""

import asyncio
import time
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any, Self, TypeVar

from redis.exceptions import NoScriptError, RedisError

from crossmodal.jobs import idle
from crossmodal.jobs.calls import Atomic, Blocking, Call, Pause, Step, Waiting
from crossmodal.jobs.connection import connect, connect_async, translated
from crossmodal.jobs.together import Sent, Together, filled, of_unknown_scripts, text_of, written
from crossmodal.settings import Settings

T = TypeVar("T")


class Runner:
    """A blocking runner of calls. Thread-safe."""

    def __init__(self, settings: Settings, retries: int = 1, what: str = "client") -> None:
        self._settings = settings
        self.redis: Any = connect(settings, retries, what=what)

    def run(self, call: Call[T]) -> T:
        """Run a call; return its result. Raises `BrokerUnavailable` and the call's own errors."""
        steps = iter(call)
        go_on: Any = steps.send
        given: Any = None
        while True:
            try:
                step = go_on(given)
            except StopIteration as end:
                result: T = end.value
                return result
            try:
                given, go_on = self._reply(step), steps.send
            except Exception as e:  # noqa: BLE001 - the call may know what to do
                if isinstance(e, idle.LOST):
                    idle.close_idle(self.redis.connection_pool)
                given, go_on = _foreign(e, self._settings), steps.throw

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.redis.close()

    def _reply(self, step: Step) -> Any:
        if isinstance(step, Blocking):
            return step.function()
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        if isinstance(step, Waiting):
            return self._alone(step.command)
        if isinstance(step, Atomic):
            return _checked(filled(self.redis.pipeline(True), step.commands).execute())
        if isinstance(step, list):
            return _checked(self._together(step))
        return self._alone(step)

    def _alone(self, sent: Sent) -> Any:
        command = written(sent)
        try:
            return self.redis.execute_command(*command.args, **command.options)
        except NoScriptError:
            self.redis.script_load(text_of(sent))
            return self.redis.execute_command(*command.args, **command.options)

    def _together(self, sent: list[Sent]) -> list[Any]:
        replies: list[Any] = filled(self.redis.pipeline(False), sent).execute(False)
        if unknown := of_unknown_scripts(sent, replies):
            try:
                for text in {text_of(sent[i]) for i in unknown}:
                    self.redis.script_load(text)
                again = self._together([sent[i] for i in unknown])
            except RedisError as e:  # for these alone: the others have their replies
                again = [e] * len(unknown)
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        return replies


class AsyncRunner:
    """A runner of calls on an event loop, which pipelines the commands of one loop iteration.

    It may be used in several loops at once, in threads: each loop has its own connections, which
    close with it.
    """

    def __init__(self, settings: Settings, retries: int = 1, what: str = "client") -> None:
        self._settings = settings
        self._connect = partial(connect_async, settings, retries, what)
        self._connected: dict[asyncio.AbstractEventLoop, _Connected] = {}

    @property
    def redis(self) -> Any:
        """Return redis-py's client of the running loop, which exists after its first call."""
        return self._connected[asyncio.get_running_loop()].redis

    async def run(self, call: Call[T]) -> T:
        """Run a call; return its result. Raises `BrokerUnavailable` and the call's own errors."""
        steps = iter(call)
        go_on: Any = steps.send
        given: Any = None
        while True:
            try:
                step = go_on(given)
            except StopIteration as end:
                result: T = end.value
                return result
            try:
                given, go_on = await self._reply(step), steps.send
            except Exception as e:  # noqa: BLE001 - the call may know what to do
                if isinstance(e, idle.LOST):
                    await self._close_idle()
                given, go_on = _foreign(e, self._settings), steps.throw

    async def close(self) -> None:
        """Close this loop's connections after all replies have arrived."""
        connected = self._connected.get(asyncio.get_running_loop())
        if connected is not None:
            await connected.settle()
            self._connected.pop(asyncio.get_running_loop(), None)
            await connected.kept.aclose()

    async def _close_idle(self) -> None:
        """Close this loop's idle connections, unless they have been closed meanwhile."""
        connected = self._connected.get(asyncio.get_running_loop())
        if connected is not None:
            await idle.close_idle_async(connected.redis.connection_pool)

    async def _reply(self, step: Step) -> Any:
        connected = self._connected.get(asyncio.get_running_loop()) or await self._open()
        return await connected.reply(step)

    async def _open(self) -> "_Connected":
        """Open connections for this event loop; drop those of closed loops."""
        for loop in [loop for loop in list(self._connected) if loop.is_closed()]:
            self._connected.pop(loop, None)
        kept = _until_the_loop_ends(self._connect())
        connected = _Connected(await anext(kept), kept)
        self._connected[asyncio.get_running_loop()] = connected
        return connected


class _Connected:
    """The connections of one event loop, and its pipelines."""

    def __init__(self, redis: Any, kept: AsyncGenerator[Any, None]) -> None:
        self.redis = redis
        self.kept = kept
        self._plain = Together(redis, is_atomic=False)
        self._atomic = Together(redis, is_atomic=True)

    async def settle(self) -> None:
        """Wait until all replies have arrived."""
        while self._plain.is_busy or self._atomic.is_busy:
            await self._plain.settle()
            await self._atomic.settle()

    async def reply(self, step: Step) -> Any:
        if isinstance(step, Blocking):
            return await asyncio.to_thread(step.function)
        if isinstance(step, Waiting):
            return await self.redis.execute_command(*step.command.args, **step.command.options)
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        if isinstance(step, Atomic):
            return _checked(await self._atomic.ask(step.commands))
        if isinstance(step, list):
            return _checked(await self._plain.ask(step))
        return _checked(await self._plain.ask([step]))[0]


async def _until_the_loop_ends(redis: Any) -> AsyncGenerator[Any, None]:
    """Yield a client and close it with the generator, which an ending event loop closes.

    So callers don't need to close a client before `asyncio.run` ends.
    """
    try:
        yield redis
    finally:
        await redis.aclose()


def _checked(replies: list[Any]) -> list[Any]:
    """Raise the first error among the replies, if any; else return them."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _foreign(error: Exception, settings: Settings) -> Exception:
    """Return redis-py's error as a `CrossmodalError`; any other unchanged."""
    if not isinstance(error, RedisError):
        return error
    ours = translated(error, settings)
    ours.__cause__ = error
    return ours
