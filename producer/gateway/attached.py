"""Jobs whose callers wait on an open connection; when it closes, the job is canceled."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress

from fastapi import Request
from starlette.requests import ClientDisconnect

from crossmodal.errors import BrokerUnavailable, Overloaded, QueuePaused, Unauthorized, WaitTooLong
from crossmodal.jobs.origin import Origin
from crossmodal.jobs.record import Job, JobState, Progress
from crossmodal.jobs.submission import PAUSED_S
from crossmodal.kinds.base import ItemParams
from crossmodal.kinds.registry import kind_of
from producer.gateway.services import Services
from producer.gateway.waiting import AGAIN_S, patience_s
from producer.http.bodies import body_is_done
from producer.leaving import cancel_left

PATIENCE_S = 600.0  # of clients that send no timeout
PATIENCE_HEADERS = ("x-stainless-read-timeout", "x-stainless-timeout")  # of OpenAI's SDKs


async def submit(params: ItemParams, origin: Origin, services: Services, request: Request) -> str:
    """Submit a job for a caller that waits, and release the request's body.

    Raises `WaitTooLong` if the caller's timeout is before the job's likely start, and
    `QueuePaused` if its queue is paused.
    """
    queue = await services.client.queue(kind_of(params).name, params.model)
    if queue.paused:
        raise QueuePaused(f"the queue {queue.queue} is paused: retry later", PAUSED_S)
    wait_s, limit_s = queue.wait_s(queue.depth), patience_of(request.headers)
    if queue.depth and wait_s is not None and wait_s > limit_s:
        raise WaitTooLong(
            f"{queue.depth} jobs wait, about {wait_s:.0f} s, longer than your timeout of "
            f"{limit_s:.0f} s: retry later, or submit to /v1/jobs, which answers at once",
            wait_s - limit_s,
        )
    handle = await services.client.submit(params, origin=origin)
    body_is_done(request.scope)
    return handle.id


async def ended(job_id: str, services: Services, request: Request) -> Job:
    """Wait for the job's end and return it. It is canceled if the caller disconnects before."""
    waiting = asyncio.create_task(_last(job_id, services))
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientDisconnect
        return await waiting
    finally:
        for task in (waiting, leaving):
            task.cancel()
        await asyncio.gather(waiting, leaving, return_exceptions=True)


async def steps(
    job_id: str, services: Services, *, watches: bool = False
) -> AsyncGenerator[Job | Progress]:
    """Yield the job at each poll, and its progress in between; the last is the ended job.

    With `watches`, previews are made. Closed before the job's end, this cancels the job.
    """
    job: Job | None = None
    try:
        with services.hub.follow(job_id) as follower:
            while not (services.hub.is_closing or follower.is_over):
                follower.look()
                with suppress(BrokerUnavailable):  # then it is polled again
                    job = await services.client.record(job_id)
                if job is not None:
                    follower.owner = job.owner
                    yield job
                    if job.state.is_terminal:
                        return
                    follower.is_watching = watches and job.state is JobState.RUNNING
                await follower.wait(AGAIN_S if job is None else patience_s(job))
                for step in follower.take_steps():
                    yield step
            if follower.is_over:
                raise Unauthorized("the API key was revoked: ask for another")
            raise Overloaded("the gateway is being stopped: ask again in a moment")
    finally:
        if job is None or not job.state.is_terminal:
            await cancel_left(services.client, job_id)


async def _last(job_id: str, services: Services) -> Job:
    async with aclosing(steps(job_id, services)) as seen:
        async for job in seen:
            if isinstance(job, Job) and job.state.is_terminal:
                return job
    raise AssertionError("steps end with the job's end, or raise")


async def _left(request: Request) -> None:
    """Return when the caller disconnects; its body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        continue


def patience_of(headers: Mapping[str, str]) -> float:
    """Return a caller's timeout in seconds, `PATIENCE_S` if it sends none; the Python SDK
    uses another header than the others."""
    for name in PATIENCE_HEADERS:
        with suppress(ValueError):
            said = float(headers.get(name, ""))
            if said > 0:  # false for NaN, too
                return said
    return PATIENCE_S
