"""The client for an event loop: the same client underneath, in threads; waits are native.

Submitting, looking and reading are calls of a bounded time and run in a thread. Waiting for jobs
takes as long as it takes, so it holds no thread: it is a blocking read of its own on an
asynchronous connection. A batch goes through a thread in turns of a few seconds, since it sends
while it waits. Signatures are those of `Client`, which alone are written down.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from crossmodal.errors import WrongState
from crossmodal.jobs.connection import broker_errors, connect_async
from crossmodal.jobs.record import ItemResult, JobResult, JobState, JobStatus
from crossmodal.settings import Settings
from producer.bulk import Results
from producer.client import Client
from producer.handle import Handle, JobHandle, ids_of, result_of
from producer.waiting import Wait

P = ParamSpec("P")
T = TypeVar("T")
Q = ParamSpec("Q")
R = TypeVar("R")


@dataclass(frozen=True)
class AsyncJobHandle(Handle):
    """The asynchronous twin of `JobHandle`."""

    client: AsyncClient = field(repr=False, compare=False)
    id: str

    async def status(self) -> JobStatus:
        """See `JobHandle.status`."""
        return await self.client.status(self.id)

    async def cancel(self) -> JobState:
        """See `JobHandle.cancel`."""
        return await self.client.cancel(self.id)

    async def wait(self, timeout_s: float | None = None) -> JobState:
        """See `JobHandle.wait`."""
        async for _ in self.client.as_completed([self], timeout_s):
            break
        return (await self.client.record(self.id)).state

    async def result(self, timeout_s: float | None = None) -> JobResult:
        """See `JobHandle.result`."""
        await self.wait(timeout_s)
        return result_of(await self.client.record(self.id))


def awaited(
    method: Callable[Concatenate[Client, P], T],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """The twin of a method that is called in a thread."""

    async def twin(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(_of(self, method), *args, **kwargs)

    return _as_twin(twin, method)


def submitted(
    method: Callable[Concatenate[Client, P], JobHandle],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, AsyncJobHandle]]:
    """The same where a handle is returned: the twin's has methods to be awaited."""

    async def twin(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncJobHandle:
        handle = await asyncio.to_thread(_of(self, method), *args, **kwargs)
        return AsyncJobHandle(self, handle.id)

    return _as_twin(twin, method, AsyncJobHandle)


def iterated(
    method: Callable[Concatenate[Client, P], Iterator[ItemResult]],
) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[ItemResult]]:
    """The same for a batch: whoever leaves it, leaves no thread that goes on with it."""

    def twin(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[ItemResult]:
        return _in_turns(partial(_of(self, method), *args, **kwargs))

    return _as_twin(twin, method, AsyncIterator[ItemResult])


def _of(client: AsyncClient, method: Callable[Concatenate[Client, P], T]) -> Callable[P, T]:
    """The method of this very client's twin, which may be of a kind of its own."""
    found: Callable[P, T] = getattr(client.sync, method.__name__)

    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            inspect.signature(found).bind(*args, **kwargs)
        except TypeError as e:  # which names no method, or that of the other client
            raise TypeError(f"AsyncClient.{method.__name__}(): {e}") from None
        return found(*args, **kwargs)

    return called


def _as_twin(
    twin: Callable[Q, R], method: Callable[..., Any], returns: Any = None
) -> Callable[Q, R]:
    """`twin` with the name, the sentence and the signature of `method`, for `help` and editors."""
    named: Any = wraps(method)(twin)
    if returns is not None:
        named.__signature__ = inspect.signature(method).replace(return_annotation=returns)
        named.__annotations__ = {**method.__annotations__, "return": returns}
    return twin


class AsyncClient:
    """The asynchronous twin of `Client`: the same methods and arguments, awaited.

    It belongs to the event loop that it first waits in. What only operators need is the blocking
    client's, which is `sync`.
    """

    def __init__(self, settings: Settings | None = None, **overrides: Any) -> None:
        self.sync = Client(settings, **overrides)
        self.redis: Any = connect_async(self.sync.settings)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        await self.close()

    async def close(self) -> None:
        if self._loop in (None, asyncio.get_running_loop()):  # else they have ended with it
            await self.redis.aclose()
        await asyncio.to_thread(self.sync.close)

    txt2img = submitted(Client.txt2img)
    img2txt = submitted(Client.img2txt)
    submit = submitted(Client.submit)
    retry = submitted(Client.retry)
    delete = awaited(Client.delete)
    upload = awaited(Client.upload)

    map_txt2img = iterated(Client.map_txt2img)
    map_img2txt = iterated(Client.map_img2txt)
    map_items = iterated(Client.map_items)
    batch = awaited(Client.batch)
    cancel_batch = awaited(Client.cancel_batch)

    job = submitted(Client.job)
    record = awaited(Client.record)
    history = awaited(Client.history)
    status = awaited(Client.status)
    cancel = awaited(Client.cancel)
    queue = awaited(Client.queue)
    queues = awaited(Client.queues)
    workers = awaited(Client.workers)
    jobs = awaited(Client.jobs)

    read = awaited(Client.read)
    sign = awaited(Client.sign)

    def as_completed(
        self, jobs: Iterable[Handle | str], timeout_s: float | None = None
    ) -> AsyncIterator[AsyncJobHandle]:
        """The jobs, each as soon as it has ended, however it ended.

        Raises `JobNotFound`, and `ResultTimeout` when one has not ended in time.
        """
        return self._as_they_end(ids_of(jobs), timeout_s)

    async def _as_they_end(
        self, job_ids: list[str], timeout_s: float | None
    ) -> AsyncIterator[AsyncJobHandle]:
        self._check_loop()
        wait = await asyncio.to_thread(self.sync._new_wait, job_ids, timeout_s)
        while wait:
            for job_id in await self._more_ended(wait):
                yield AsyncJobHandle(self, job_id)

    async def _more_ended(self, wait: Wait) -> list[str]:
        if look := wait.to_look_at():
            return wait.end(await asyncio.to_thread(self.sync.run, self.sync.ledger.ended(look)))
        with broker_errors(self.sync.settings):
            return wait.feed(await self.redis.execute_command(*wait.command()))

    def _check_loop(self) -> None:
        """Raise `WrongState` in any loop but the first: connections cannot change theirs."""
        here = asyncio.get_running_loop()
        self._loop = self._loop or here
        if self._loop is not here:
            raise WrongState(
                "this AsyncClient has waited in another event loop: make one for each loop, as "
                "`async with AsyncClient()` inside of what asyncio.run runs"
            )


async def _in_turns(begin: Callable[[], Iterator[ItemResult]]) -> AsyncIterator[ItemResult]:
    results = await asyncio.to_thread(begin)
    turns = results.turns if isinstance(results, Results) else results  # of a client of one's own
    end = object()
    while (found := await asyncio.to_thread(next, turns, end)) is not end:
        if isinstance(found, ItemResult):
            yield found
