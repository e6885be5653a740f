"""Waiting for a job: its place in the queue, when to look at it again, its end; open streams."""

import time
from typing import Any

from fastapi import Request

from crossmodal.jobs.record import Job, JobState
from producer.following import STATUS_S
from producer.gateway.hub import Follower
from producer.gateway.responses import JobView, Urls, job_view
from producer.gateway.services import Services

LOOK_S = 10.0  # poll interval of a followed job without events, as for its expiry
SKEW_S = 1.0  # max lead of this machine's clock over Redis's
GONE_S = 2.0  # poll interval for a disconnected client
AGAIN_S = 1.0  # retry interval after Redis has failed
KEEPALIVE = b": keep-alive\n\n"  # for the OpenAI routes' streams
EVENTS: dict[str, Any] = {
    "text/event-stream": {
        "schema": {  # their OpenAPI documentation
            "type": "object",
            "required": ["data"],
            "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
        }
    }
}


async def view(job: Job, services: Services, urls: Urls) -> JobView:
    """Return a job's view, with its place in the queue while it waits."""
    if job.state is not JobState.QUEUED:
        return job_view(job, urls)
    position, wait_s = await services.ask(services.calls.ledger.place(job))
    known = await services.client.models(max_age_s=STATUS_S)
    return job_view(job, urls, position, wait_s, known.waits_for(job.queue))


async def ended(job: Job, services: Services, wait_s: float, request: Request) -> Job:
    """Return the job at its end, at the timeout, or when the client disconnects.

    Raises what reading its record raises.
    """
    deadline = time.monotonic() + wait_s
    with services.hub.follow(job.id, job.owner) as follower:
        while not (services.hub.is_closing or follower.is_over):
            follower.look()
            job = await services.client.record(job.id)
            left_s = deadline - time.monotonic()
            if job.state.is_terminal or left_s <= 0:
                break
            if not await _waited(follower, min(left_s, patience_s(job)), request):
                break
    return job


async def _waited(follower: Follower, wait_s: float, request: Request) -> bool:
    """Wait for news; return False once the client has disconnected."""
    deadline = time.monotonic() + wait_s
    while not follower.has_news and (left_s := deadline - time.monotonic()) > 0:
        await follower.wait(min(left_s, GONE_S))
        if await request.is_disconnected():
            return False
    return True


def patience_s(job: Job) -> float:
    """Return the seconds until the job's next poll: `LOOK_S`, less if it expires before."""
    if job.state is not JobState.QUEUED or job.expires_at is None:
        return LOOK_S
    left_s = job.expires_at - time.time()
    if left_s < -SKEW_S:  # it was started in time, and waits for a retry
        return LOOK_S
    return min(LOOK_S, max(0.05, left_s))
