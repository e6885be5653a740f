"""Run calls: one after the other and waiting, or many at once on an event loop."""

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any, Self, TypeVar

from redis.exceptions import DataError, NoScriptError, RedisError

from crossmodal.jobs.calls import (
    Atomic,
    Blocking,
    Call,
    Command,
    Script,
    Step,
    Waiting,
)
from crossmodal.jobs.connection import connect, connect_async, translated
from crossmodal.jobs.scripts import digest, script
from crossmodal.settings import Settings

T = TypeVar("T")
Sent = Command | Script
MAX_SENT = 1_000  # commands in one pipeline


class Runner:
    """Runs calls over connections that wait for each reply. Safe to share by threads."""

    def __init__(self, settings: Settings, retries: int = 1, what: str = "client") -> None:
        self._settings = settings
        self.redis: Any = connect(settings, retries, what=what)

    def run(self, call: Call[T]) -> T:
        """What the call comes to. Raises `BrokerUnavailable`, and what the call raises."""
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
        if isinstance(step, Waiting):
            return self._alone(step.command)
        if isinstance(step, Atomic):
            return _checked(_filled(self.redis.pipeline(True), step.commands).execute())
        if isinstance(step, list):
            return _checked(self._together(step))
        return self._alone(step)

    def _alone(self, sent: Sent) -> Any:
        command = _written(sent)
        try:
            return self.redis.execute_command(*command.args, **command.options)
        except NoScriptError:
            self.redis.script_load(_text(sent))
            return self.redis.execute_command(*command.args, **command.options)

    def _together(self, sent: list[Sent]) -> list[Any]:
        replies: list[Any] = _filled(self.redis.pipeline(False), sent).execute(False)
        if unknown := _unknown(sent, replies):
            for text in {_text(sent[i]) for i in unknown}:
                self.redis.script_load(text)
            try:
                again = self._together([sent[i] for i in unknown])
            except RedisError as e:  # of these alone: the others have their replies
                again = [e] * len(unknown)
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        return replies


class AsyncRunner:
    """Runs calls on an event loop: what is asked within one turn of it travels together.

    It may be used in one loop after another: connections end with the loop they were made in.
    """

    def __init__(self, settings: Settings, retries: int = 1, what: str = "client") -> None:
        self._settings = settings
        self._connect = partial(connect_async, settings, retries, what)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked: list[tuple[list[Sent], asyncio.Future[list[Any]]]] = []
        self._sending: asyncio.Task[None] | None = None
        self._kept: AsyncGenerator[Any, None] | None = None
        self.redis: Any = None
        """redis-py's client, once something has been run."""

    async def run(self, call: Call[T]) -> T:
        """What the call comes to. Raises `BrokerUnavailable`, and what the call raises."""
        if self._loop is not asyncio.get_running_loop():
            await self._open()
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
                given, go_on = _foreign(e, self._settings), steps.throw

    async def close(self) -> None:
        """End the connections, once all that was asked in this loop is answered."""
        while self._sending is not None and self._loop is asyncio.get_running_loop():
            await asyncio.wait({self._sending})
            await asyncio.sleep(0)  # a call that has its reply may ask again
        kept, self._kept, self._loop = self._kept, None, None
        if kept is not None:
            await kept.aclose()

    async def _open(self) -> None:
        """Begin anew in this event loop, as if nothing had been asked in another."""
        self._loop, self._asked, self._sending = asyncio.get_running_loop(), [], None
        self._kept = _until_the_loop_ends(self._connect())
        self.redis = await anext(self._kept)

    async def _reply(self, step: Step) -> Any:
        if isinstance(step, Blocking):
            return await asyncio.to_thread(step.function)
        if isinstance(step, Waiting):
            return await self.redis.execute_command(*step.command.args, **step.command.options)
        if isinstance(step, Atomic):
            return _checked(await _filled(self.redis.pipeline(True), step.commands).execute())
        if isinstance(step, list):
            return _checked(await self._ask(step))
        return _checked(await self._ask([step]))[0]

    def _ask(self, sent: list[Sent]) -> "asyncio.Future[list[Any]]":
        """The replies to some commands, which are sent with all others of this turn."""
        replies: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._asked.append((sent, replies))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_asked())
        return replies

    async def _send_asked(self) -> None:
        """Send until nothing more is asked; while one pipeline is under way, the next fills."""
        try:
            while self._asked:
                await asyncio.sleep(0)
                await self._answer(self._first())
        finally:
            self._sending = None

    def _first(self) -> list[tuple[list[Sent], "asyncio.Future[list[Any]]"]]:
        """What fits into a pipeline of all that was asked, taken from it."""
        count = 0
        for n, (sent, _) in enumerate(self._asked):
            count += len(sent)
            if count > MAX_SENT and n:
                break
        else:
            n = len(self._asked)
        first, self._asked = self._asked[:n], self._asked[n:]
        return first

    async def _answer(self, asked: list[tuple[list[Sent], "asyncio.Future[list[Any]]"]]) -> None:
        sent = [one for some, _ in asked for one in some]
        try:
            replies = iter(await self._together(sent))
        except (UnicodeError, DataError) as e:  # one cannot be written; nothing was sent
            if len(asked) > 1:
                for one in asked:
                    await self._answer([one])
            elif not asked[0][1].done():
                asked[0][1].set_exception(e)
            return
        except BaseException as e:
            for _, future in asked:
                if not future.done():
                    future.set_exception(e)
            if not isinstance(e, Exception):
                raise
            return
        for some, future in asked:
            own = [next(replies) for _ in some]
            if not future.done():  # nobody waits for it any more
                future.set_result(own)

    async def _together(self, sent: list[Sent]) -> list[Any]:
        replies: list[Any] = await _filled(self.redis.pipeline(False), sent).execute(False)
        if unknown := _unknown(sent, replies):
            for text in {_text(sent[i]) for i in unknown}:
                await self.redis.script_load(text)
            try:
                again = await self._together([sent[i] for i in unknown])
            except RedisError as e:  # of these alone: the others have their replies
                again = [e] * len(unknown)
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        return replies


async def _until_the_loop_ends(redis: Any) -> AsyncGenerator[Any, None]:
    """Give out a client that is closed with the generator: an event loop that ends closes these.

    So nobody needs to close a client before `asyncio.run` is over.
    """
    try:
        yield redis
    finally:
        await redis.aclose()


def _written(sent: Sent) -> Command:
    if isinstance(sent, Command):
        return sent
    return Command(("EVALSHA", digest(sent.name), len(sent.keys), *sent.keys, *sent.args))


def _text(sent: Sent) -> str:
    assert isinstance(sent, Script)  # noqa: S101 - for mypy: nothing else has no script
    return script(sent.name)


def _filled(pipeline: Any, sent: Any) -> Any:
    for one in sent:
        command = _written(one)
        pipeline.execute_command(*command.args, **command.options)
    return pipeline


def _unknown(sent: list[Sent], replies: list[Any]) -> list[int]:
    """Which were refused because the server, perhaps restarted, has not loaded their script."""
    return [
        i for i, reply in enumerate(replies)
        if isinstance(reply, NoScriptError) and isinstance(sent[i], Script)
    ]  # fmt: skip


def _checked(replies: list[Any]) -> list[Any]:
    """Raises the first of the errors among them."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _foreign(error: Exception, settings: Settings) -> Exception:
    """What redis-py raised as an error of ours; any other as it is."""
    if not isinstance(error, RedisError):
        return error
    ours = translated(error, settings)
    ours.__cause__ = error
    return ours
