"""The client for an event loop: the same client underneath, in threads; waits are native.

Submitting, looking and reading are calls of a bounded time and run in a thread. Waiting
takes as long as it takes, so it holds no thread: it is a blocking read of its own on an
asynchronous connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

from crossmodal.jobs.connection import broker_errors, connect_async
from crossmodal.jobs.listing import Page
from crossmodal.jobs.names import Task
from crossmodal.jobs.params import BlobRef, Params
from crossmodal.jobs.record import (
    BatchStatus,
    ItemResult,
    Job,
    JobEvent,
    JobResult,
    JobState,
    JobStatus,
    QueueStatus,
    WorkerInfo,
)
from crossmodal.settings import Settings
from producer.bulk import Request
from producer.client import Client, Picture
from producer.handle import JobHandle, result_of


class AsyncClient:
    """The asynchronous twin of `Client`: the same methods and keyword arguments, awaited."""

    def __init__(self, settings: Settings | None = None, **overrides: Any) -> None:
        self.sync = Client(settings, **overrides)
        self.redis: Any = connect_async(self.sync.settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        await self.close()

    async def close(self) -> None:
        await self.redis.aclose()
        await asyncio.to_thread(self.sync.close)

    async def txt2img(self, prompt: str, **options: Any) -> AsyncJobHandle:
        """See `Client.txt2img`."""
        return self._twin(await asyncio.to_thread(self.sync.txt2img, prompt, **options))

    async def img2txt(self, image: Picture, **options: Any) -> AsyncJobHandle:
        """See `Client.img2txt`."""
        return self._twin(await asyncio.to_thread(self.sync.img2txt, image, **options))

    def map_txt2img(self, prompts: Iterable[str], **options: Any) -> AsyncIterator[ItemResult]:
        """See `Client.map_txt2img`."""
        return _in_thread(partial(self.sync.map_txt2img, prompts, **options))

    def map_img2txt(self, images: Iterable[Picture], **options: Any) -> AsyncIterator[ItemResult]:
        """See `Client.map_img2txt`."""
        return _in_thread(partial(self.sync.map_img2txt, images, **options))

    def map_items(
        self, items: Iterable[Request | ItemResult], **options: Any
    ) -> AsyncIterator[ItemResult]:
        """See `Client.map_items`."""
        return _in_thread(partial(self.sync.map_items, items, **options))

    async def batch(self, batch_id: str) -> BatchStatus:
        """See `Client.batch`."""
        return await asyncio.to_thread(self.sync.batch, batch_id)

    async def cancel_batch(self, batch_id: str) -> BatchStatus:
        """See `Client.cancel_batch`."""
        return await asyncio.to_thread(self.sync.cancel_batch, batch_id)

    async def submit(self, params: Params, **options: Any) -> AsyncJobHandle:
        """See `Client.submit`."""
        return self._twin(await asyncio.to_thread(self.sync.submit, params, **options))

    async def upload(self, image: Picture, *, owner: str = "") -> BlobRef:
        """See `Client.upload`."""
        return await asyncio.to_thread(self.sync.upload, image, owner=owner)

    async def retry(self, job_id: str, **options: Any) -> AsyncJobHandle:
        """See `Client.retry`."""
        return self._twin(await asyncio.to_thread(self.sync.retry, job_id, **options))

    async def delete(self, job_id: str) -> None:
        """See `Client.delete`."""
        await asyncio.to_thread(self.sync.delete, job_id)

    async def jobs(self, owner: str = "", **query: Any) -> Page:
        """See `Client.jobs`."""
        return await asyncio.to_thread(self.sync.jobs, owner, **query)

    async def record(self, job_id: str) -> Job:
        """See `Client.record`."""
        return await asyncio.to_thread(self.sync.record, job_id)

    async def history(self, job_id: str) -> list[JobEvent]:
        """See `Client.history`."""
        return await asyncio.to_thread(self.sync.history, job_id)

    async def status(self, job_id: str) -> JobStatus:
        """See `Client.status`."""
        return await asyncio.to_thread(self.sync.status, job_id)

    async def cancel(self, job_id: str) -> JobState:
        """See `Client.cancel`."""
        return await asyncio.to_thread(self.sync.cancel, job_id)

    async def queue(self, task: Task) -> QueueStatus:
        """See `Client.queue`."""
        return await asyncio.to_thread(self.sync.queue, task)

    async def queues(self) -> list[QueueStatus]:
        """See `Client.queues`."""
        return await asyncio.to_thread(self.sync.queues)

    async def workers(self) -> list[WorkerInfo]:
        """See `Client.workers`."""
        return await asyncio.to_thread(self.sync.workers)

    async def sign(self, blob: BlobRef, expires_in_s: float = 3_600) -> str | None:
        """See `Client.sign`."""
        return await asyncio.to_thread(self.sync.sign, blob, expires_in_s)

    async def job(self, job_id: str) -> AsyncJobHandle:
        """See `Client.job`."""
        return self._twin(await asyncio.to_thread(self.sync.job, job_id))

    async def read(self, blob: BlobRef) -> bytes:
        """See `Client.read`."""
        return await asyncio.to_thread(self.sync.read, blob)

    async def as_completed(
        self, jobs: Iterable[AsyncJobHandle], timeout_s: float | None = None
    ) -> AsyncIterator[AsyncJobHandle]:
        """See `Client.as_completed`."""
        handles = {job.id: job for job in jobs}
        wait = await asyncio.to_thread(self.sync.new_wait, handles, timeout_s)
        while wait:
            if look := wait.to_look_at():
                ended = wait.end(await asyncio.to_thread(self.sync.ledger.ended, look))
            else:
                with broker_errors(self.sync.settings):
                    ended = wait.feed(await self.redis.execute_command(*wait.command()))
            for job_id in ended:
                yield handles[job_id]

    def _twin(self, handle: JobHandle) -> AsyncJobHandle:
        return AsyncJobHandle(self, handle.id)


async def _in_thread(begin: Callable[[], Iterator[ItemResult]]) -> AsyncIterator[ItemResult]:
    """Iterate without holding up the event loop; no thread is held between two items."""
    items = await asyncio.to_thread(begin)
    while (item := await asyncio.to_thread(next, items, None)) is not None:
        yield item


@dataclass(frozen=True)
class AsyncJobHandle:
    """The asynchronous twin of `JobHandle`."""

    client: AsyncClient = field(repr=False, compare=False)
    id: str

    async def status(self) -> JobStatus:
        return await self.client.status(self.id)

    async def cancel(self) -> JobState:
        return await self.client.cancel(self.id)

    async def wait(self, timeout_s: float | None = None) -> JobState:
        async for _ in self.client.as_completed([self], timeout_s):
            break
        return (await self.client.record(self.id)).state

    async def result(self, timeout_s: float | None = None) -> JobResult:
        await self.wait(timeout_s)
        return result_of(await self.client.record(self.id))
