"""Commands that travel together: how they are written, and those of many callers of a loop."""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import DataError, NoScriptError, RedisError, ResponseError

from crossmodal.jobs.calls import Command, Script
from crossmodal.jobs.scripts import digest, script

Sent = Command | Script
Asked = list[tuple[Sequence[Sent], "asyncio.Future[list[Any]]"]]
MAX_SENT = 1_000  # commands in one pipeline


class Together:
    """Sends what is asked within one turn of the loop, or while others are under way, at once.

    With `is_atomic`, nothing else comes between the commands of one pipeline.
    """

    def __init__(self, redis: Any, *, is_atomic: bool) -> None:
        self._redis = redis
        self._is_atomic = is_atomic
        # What is raised where one cannot be written, or is refused in a transaction.
        self._nothing_done: tuple[type[Exception], ...] = (UnicodeEncodeError, DataError)
        if is_atomic:
            self._nothing_done += (ResponseError,)
        self._asked: Asked = []
        self._sending: asyncio.Task[None] | None = None

    def ask(self, sent: Sequence[Sent]) -> "asyncio.Future[list[Any]]":
        """The replies to some commands; errors are among them."""
        replies: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._asked.append((sent, replies))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_asked())
        return replies

    @property
    def is_busy(self) -> bool:
        return self._sending is not None

    async def settle(self) -> None:
        """Return when all that was asked has been answered."""
        while self._sending is not None:
            await asyncio.wait({self._sending})
            await asyncio.sleep(0)  # a call that has its reply may ask again

    async def _send_asked(self) -> None:
        """Send until nothing more is asked; while one pipeline is under way, the next fills."""
        try:
            while self._asked:
                await asyncio.sleep(0)
                await self._answer(self._first())
        finally:
            self._sending = None

    def _first(self) -> Asked:
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

    async def _answer(self, asked: Asked) -> None:
        sent = [one for some, _ in asked for one in some]
        try:
            replies = iter(await self._replies(sent))
        except self._nothing_done as e:
            if len(asked) > 1:
                for one in asked:
                    await self._answer([one])
            else:
                _fail(asked, e)
        except Exception as e:  # noqa: BLE001 - it is told to who has asked
            _fail(asked, e)
        except BaseException as e:
            _fail(asked, e)
            raise
        else:
            for some, future in asked:
                own = [next(replies) for _ in some]
                if not future.done():  # nobody waits for it any more
                    future.set_result(own)

    async def _replies(self, sent: Sequence[Sent]) -> list[Any]:
        pipeline = filled(self._redis.pipeline(self._is_atomic), sent)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        if unknown := of_unknown_scripts(sent, replies):
            try:
                for text in {text_of(sent[i]) for i in unknown}:
                    await self._redis.script_load(text)
                again = await self._replies([sent[i] for i in unknown])
            except RedisError as e:  # of these alone: the others have their replies
                again = [e] * len(unknown)
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        return replies


def _fail(asked: Asked, error: BaseException) -> None:
    for _, future in asked:
        if not future.done():
            future.set_exception(error)


def written(sent: Sent) -> Command:
    """A command as it is sent."""
    if isinstance(sent, Command):
        return sent
    return Command(("EVALSHA", digest(sent.name), len(sent.keys), *sent.keys, *sent.args))


def text_of(sent: Sent) -> str:
    """The text of a script."""
    assert isinstance(sent, Script)  # noqa: S101 - for mypy: nothing else has no script
    return script(sent.name)


def filled(pipeline: Any, sent: Sequence[Sent]) -> Any:
    """redis-py's pipeline with some commands in it."""
    for one in sent:
        command = written(one)
        pipeline.execute_command(*command.args, **command.options)
    return pipeline


def of_unknown_scripts(sent: Sequence[Sent], replies: Sequence[Any]) -> list[int]:
    """Which were refused because the server, perhaps restarted, has not loaded their script."""
    return [
        i
        for i, reply in enumerate(replies)
        if isinstance(reply, NoScriptError) and isinstance(sent[i], Script)
    ]
