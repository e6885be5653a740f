"""Pipelines: the commands of one call, and of concurrent calls on an event loop."""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import DataError, NoScriptError, RedisError, ResponseError

from crossmodal.jobs.calls import Command, Script
from crossmodal.jobs.scripts.loader import digest, script

Sent = Command | Script
Asked = list[tuple[Sequence[Sent], "asyncio.Future[list[Any]]"]]
MAX_SENT = 1_000  # commands in one pipeline


class Together:
    """A sender that pipelines commands: those of one loop iteration, or queued during a send.

    With `is_atomic`, each pipeline is a MULTI/EXEC transaction.
    """

    def __init__(self, redis: Any, *, is_atomic: bool) -> None:
        self._redis = redis
        self._is_atomic = is_atomic
        # Errors after which no command ran: a failed encoding or a refused transaction.
        self._nothing_done: tuple[type[Exception], ...] = (UnicodeEncodeError, DataError)
        if is_atomic:
            self._nothing_done += (ResponseError,)
        self._asked: Asked = []
        self._sending: asyncio.Task[None] | None = None

    def ask(self, sent: Sequence[Sent]) -> "asyncio.Future[list[Any]]":
        """Queue commands; return a future of their replies, which may be exceptions."""
        replies: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._asked.append((sent, replies))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_asked())
        return replies

    @property
    def is_busy(self) -> bool:
        return self._sending is not None

    async def settle(self) -> None:
        """Wait until all replies have arrived."""
        while self._sending is not None:
            await asyncio.wait({self._sending})
            await asyncio.sleep(0)  # a call that got its reply may send its next command

    async def _send_asked(self) -> None:
        """Send pipelines until none is left; while one is in flight, the next one fills."""
        try:
            while self._asked:
                await asyncio.sleep(0)
                await self._answer(self._first())
        finally:
            self._sending = None

    def _first(self) -> Asked:
        """Remove and return the queued commands that fit into one pipeline."""
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
        except Exception as e:  # noqa: BLE001 - passed on to the callers
            _fail(asked, e)
        except BaseException as e:
            _fail(asked, e)
            raise
        else:
            for some, future in asked:
                own = [next(replies) for _ in some]
                if not future.done():  # its caller was canceled
                    future.set_result(own)

    async def _replies(self, sent: Sequence[Sent]) -> list[Any]:
        pipeline = filled(self._redis.pipeline(self._is_atomic), sent)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        if unknown := of_unknown_scripts(sent, replies):
            try:
                for text in {text_of(sent[i]) for i in unknown}:
                    await self._redis.script_load(text)
                again = await self._replies([sent[i] for i in unknown])
            except RedisError as e:  # for these alone: the others have their replies
                again = [e] * len(unknown)
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        return replies


def _fail(asked: Asked, error: BaseException) -> None:
    for _, future in asked:
        if not future.done():
            future.set_exception(error)


def written(sent: Sent) -> Command:
    """Return a command in the form that is sent; EVALSHA for a script."""
    if isinstance(sent, Command):
        return sent
    return Command(("EVALSHA", digest(sent.name), len(sent.keys), *sent.keys, *sent.args))


def text_of(sent: Sent) -> str:
    """Return the text of a script."""
    assert isinstance(sent, Script)  # noqa: S101 - for mypy: only scripts get NoScriptError
    return script(sent.name)


def filled(pipeline: Any, sent: Sequence[Sent]) -> Any:
    """Add commands to redis-py's pipeline and return it."""
    for one in sent:
        command = written(one)
        pipeline.execute_command(*command.args, **command.options)
    return pipeline


def of_unknown_scripts(sent: Sequence[Sent], replies: Sequence[Any]) -> list[int]:
    """Return the indices of scripts that the server, perhaps restarted, has not loaded."""
    return [
        i
        for i, reply in enumerate(replies)
        if isinstance(reply, NoScriptError) and isinstance(sent[i], Script)
    ]
