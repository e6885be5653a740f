"""Waiting for a job on behalf of an agent, with progress reports and a timeout."""

from collections.abc import Awaitable, Callable

import anyio

from crossmodal.errors import BrokerUnavailable, ResultTimeout
from crossmodal.jobs.record import Job, JobStatus
from producer.aio import AsyncClient
from producer.leaving import cancel_left
from producer.place import place

AGAIN_S = 1.0  # before a retry while Redis is unavailable

Report = Callable[[float, float | None, str], Awaitable[None]]
"""Sends a notification: progress, total, and a message."""


class Progress:
    """The progress reports of a job; MCP requires that progress always increases.

    Steps of a job count from 1. Changes before the first step, or of a model that reports none, are
    fractions below 1.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._told = -1.0
        self._said = ""
        self._count = 0

    async def tell(self, status: JobStatus) -> None:
        words = place(status)
        step = status.progress
        if words == self._said:
            return
        if step is None:
            so_far, total = 1 - 1 / (self._count + 1), None
        else:
            so_far, total = float(step.step), float(step.of)
        self._count += 1
        self._said = words
        if so_far > self._told:  # not after a new attempt has begun at step 1
            self._told = so_far
            await self._report(so_far, total, words)


async def ended(client: AsyncClient, job_id: str, patience_s: float, report: Report) -> Job | None:
    """Wait until a job has ended, and return it; None after `patience_s` seconds.

    Retries within that time while Redis is unavailable.
    """
    progress = Progress(report)
    until = anyio.current_time() + patience_s
    while (left_s := until - anyio.current_time()) > 0:
        try:
            return await _followed(client, job_id, left_s, progress)
        except ResultTimeout:
            return None
        except BrokerUnavailable:
            await anyio.sleep(min(AGAIN_S, left_s))
    return None


async def _followed(client: AsyncClient, job_id: str, left_s: float, progress: Progress) -> Job:
    wait = await client.run(client.calls.wait([job_id], left_s))
    while wait:
        if wait.is_time_to_tell():
            await progress.tell(await client.status(job_id))
        await client.run(client.calls.more_ended(wait))
    return await client.record(job_id)


async def own_ended(
    client: AsyncClient, job_id: str, patience_s: float, report: Report
) -> Job | None:
    """Do as `ended` for the request's own job: cancel the job if the request is canceled."""
    try:
        return await ended(client, job_id, patience_s, report)
    except anyio.get_cancelled_exc_class():
        await cancel_left(client, job_id)
        raise


class Waits:
    """All waits of this server, which can be ended at once when it stops."""

    def __init__(self) -> None:
        self._scopes: set[anyio.CancelScope] = set()
        self._has_ended = False

    async def one(self, waiting: Awaitable[Job | None]) -> Job | None:
        """Await and return a job. Raises `BrokerUnavailable` if the server stops first."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            if self._has_ended:  # while the request submitted its job
                scope.cancel()
            try:
                return await waiting
            finally:
                self._scopes.discard(scope)
        raise BrokerUnavailable("this server is stopping: try again later")

    def end(self) -> None:
        """End all waits, also those that are about to begin; cancel their requests' own jobs."""
        self._has_ended = True
        for scope in list(self._scopes):
            scope.cancel()
