"""The asynchronous client: the same calls as `Client`, awaited.

The event loop sends commands to Redis itself, and pipelines those of one iteration of the loop.
The object store is used in threads, and so are the items of a batch, which may be files.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self

from crossmodal.jobs.calls import Call
from crossmodal.jobs.record import ItemResult, JobEvent, JobResult, JobState, JobStatus, Progress
from crossmodal.jobs.runners import AsyncRunner
from crossmodal.settings import Settings
from producer.batches.bulk import Batch
from producer.calls import ClientCalls
from producer.client import Client
from producer.events import Events
from producer.handle import Handle, ids_of, result_of
from producer.live import told
from producer.notebook import job_html, with_pictures
from producer.twins import as_twin, asked, awaited

P = ParamSpec("P")


@dataclass(frozen=True)
class AsyncJobHandle(Handle):
    """The asynchronous twin of `JobHandle`."""

    client: AsyncClient = field(repr=False, compare=False)
    id: str

    async def status(self) -> JobStatus:
        """See `JobHandle.status`."""
        return await self.client.status(self.id)

    def events(self) -> AsyncIterator[JobEvent | Progress]:
        """See `JobHandle.events`."""
        return self.client.events(self.id)

    async def cancel(self) -> JobState:
        """See `JobHandle.cancel`."""
        return await self.client.cancel(self.id)

    async def wait(self, timeout_s: float | None = None) -> JobState:
        """See `JobHandle.wait`."""
        return (await self.client._ended(self.id, timeout_s)).state

    async def result(self, timeout_s: float | None = None, progress: bool = False) -> JobResult:
        """See `JobHandle.result`."""
        with told(progress) as tell:
            job = await self.client._ended(self.id, timeout_s, tell)
        return with_pictures(result_of(job), self.client.sync.read)

    def _repr_html_(self) -> str:
        return job_html(self.client.sync, self.id)


def submitted(
    method: Callable[Concatenate[Any, P], Call[str]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, AsyncJobHandle]]:
    """Return a method that runs the call and wraps the job id it returns in a handle."""

    async def twin(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncJobHandle:
        return AsyncJobHandle(self, await self.run(asked(self, method, *args, **kwargs)))

    return as_twin(twin, method, AsyncJobHandle)


def iterated(
    method: Callable[Concatenate[Any, P], Batch],
) -> Callable[Concatenate[Any, P], AsyncIterator[ItemResult]]:
    """Return a method that advances its batch as the caller iterates over the results."""

    def twin(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[ItemResult]:
        return _results(self, asked(self, method, *args, **kwargs))

    return as_twin(twin, method, AsyncIterator[ItemResult])


class AsyncClient:
    """The asynchronous twin of `Client`: the same methods and arguments, awaited.

    It may be used in several event loops, one after another or at once in threads. The blocking
    client `sync` has what only operators need.
    """

    _what = "client"  # names its connections in Redis

    def __init__(self, settings: Settings | None = None, **overrides: Any) -> None:
        self.sync = Client(settings, **overrides)
        self.calls = self.sync.calls
        self.runner = AsyncRunner(self.sync.settings, what=self._what)
        self.run = self.runner.run

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self.runner.close()
        self.sync.close()

    txt2img = submitted(ClientCalls.txt2img)
    img2txt = submitted(ClientCalls.img2txt)
    submit = submitted(ClientCalls.submit)
    retry = submitted(ClientCalls.retry)
    delete = awaited(ClientCalls.delete)
    upload = awaited(ClientCalls.upload)

    map_txt2img = iterated(ClientCalls.map_txt2img)
    map_img2txt = iterated(ClientCalls.map_img2txt)
    map_items = iterated(ClientCalls.map_items)
    batch = awaited(ClientCalls.batch)
    cancel_batch = awaited(ClientCalls.cancel_batch)

    job = submitted(ClientCalls.job)
    record = awaited(ClientCalls.record)
    history = awaited(ClientCalls.history)
    status = awaited(ClientCalls.status)
    cancel = awaited(ClientCalls.cancel)
    cancel_all = awaited(ClientCalls.cancel_all)
    pause = awaited(ClientCalls.pause)
    resume = awaited(ClientCalls.resume)
    models = awaited(ClientCalls.models)
    model = awaited(ClientCalls.model)
    queue = awaited(ClientCalls.queue)
    queues = awaited(ClientCalls.queues)
    workers = awaited(ClientCalls.workers)
    jobs = awaited(ClientCalls.jobs)
    _ended = awaited(ClientCalls.ended)

    def events(self, job: Handle | str) -> AsyncIterator[JobEvent | Progress]:
        """Yield a job's past events, then new ones until it has ended.

        A `JobEvent` for each transition and, while it runs, `Progress` from models that report
        their steps. Raises `JobNotFound`.
        """
        return _events(self, self.calls.events_of(job))

    read = awaited(ClientCalls.read)
    sign = awaited(ClientCalls.sign)

    def as_completed(
        self, jobs: Iterable[Handle | str], timeout_s: float | None = None
    ) -> AsyncIterator[AsyncJobHandle]:
        """Yield each job as soon as it has ended, in whatever state.

        Raises `JobNotFound`, and `ResultTimeout` when one has not ended in time.
        """
        return self._as_they_end(ids_of(jobs), timeout_s)

    async def _as_they_end(
        self, job_ids: list[str], timeout_s: float | None
    ) -> AsyncIterator[AsyncJobHandle]:
        wait = await self.run(self.calls.wait(job_ids, timeout_s))
        while wait:
            for job_id in await self.run(self.calls.more_ended(wait)):
                yield AsyncJobHandle(self, job_id)


async def _events(client: AsyncClient, events: Events) -> AsyncIterator[JobEvent | Progress]:
    while not events.is_done:
        for event in await client.run(client.calls.more_events(events)):
            yield event


async def _results(client: AsyncClient, batch: Batch) -> AsyncIterator[ItemResult]:
    while not batch.is_done:
        for found in await client.run(batch.turn()):
            yield with_pictures(found, client.sync.read)
