"""Server-sent events: of one job until it has ended, and of all that the page shows.

Everything that may refuse a request is asked before its stream begins; what fails later is
waited for, and a client that was cut off goes on after `Last-Event-ID`.
"""

import re
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from crossmodal.errors import BrokerUnavailable, JobNotFound
from crossmodal.jobs.record import Job, JobState, Progress, WorkerInfo
from producer.gateway import problems
from producer.gateway.caller import Caller, OwnJob, UrlsOf
from producer.gateway.hub import Follower
from producer.gateway.operations import queues
from producer.gateway.problems import BadRequest, NothingMore, documented
from producer.gateway.services import Services, ServicesOf
from producer.gateway.shapes import QueuesView, job_view, progress_view

LOOK_S = 10.0  # how often a followed job is looked at without news, for what the clock does
SKEW_S = 1.0  # that this machine's clock may be ahead of Redis's
GONE_S = 2.0  # how often one who waits is looked for
AGAIN_S = 1.0  # after Redis has failed
KEEPALIVE = b": keep-alive\n\n"  # of streams that other interfaces have
EVENTS: dict[str, Any] = {
    "text/event-stream": {
        "schema": {  # and how those are documented
            "type": "object",
            "required": ["data"],
            "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
        }
    }
}
END = "end"  # the id of a job's last event
_ID = re.compile(r"\d{1,12}(\.\d{1,6})?")

router = APIRouter(tags=[problems.EVENTS_TAG])


async def after(
    last_event_id: Annotated[
        str | None, Header(max_length=40, description="Of the last event that has arrived.")
    ] = None,
) -> float:
    """When the last event happened that the client has. Raises `BadRequest` or `NothingMore`."""
    if last_event_id == END:
        raise NothingMore
    if last_event_id and not _ID.fullmatch(last_event_id):
        raise BadRequest(f"Last-Event-ID {last_event_id!r} is no id of an event")
    return float(last_event_id or 0.0)


async def lasting(key: Caller, services: ServicesOf) -> None:
    """What a request depends on that lasts, such as a stream. Raises `RateLimited`."""
    services.connections.check_room(key.id)


@router.get(
    "/v1/jobs/{job_id}/events",
    response_class=EventSourceResponse,
    responses=documented(404)
    | {204: {"description": "`Last-Event-ID` is that of the `end`: there is nothing more."}},
    dependencies=[Depends(lasting)],
)
async def of_job(
    job: OwnJob, services: ServicesOf, urls: UrlsOf, seen: Annotated[float, Depends(after)]
) -> AsyncIterator[ServerSentEvent]:
    """What happens to the job, from its beginning or after `Last-Event-ID`, until it has ended.

    `state` events have ids, and so has the `end`, which has the job; `position` events tell the
    place in the queue, `progress` events how many steps are done.
    """
    progress: Progress | None = None
    with services.hub.follow(job.id, job.owner) as follower:
        while not (services.hub.is_closing or follower.is_over):
            follower.look()
            try:
                job, history = await services.ask(services.calls.ledger.follow(job.id))
            except BrokerUnavailable:
                await follower.wait(AGAIN_S)
                continue
            except JobNotFound:  # deleted meanwhile
                return
            follower.is_watching = job.state is JobState.RUNNING
            for step in follower.take_steps():
                if step != progress:
                    progress = step
                    yield ServerSentEvent(event="progress", data=progress_view(step, urls))
            for event in history:
                if event.at > seen:  # no two of a job have the same time
                    seen = event.at
                    yield ServerSentEvent(event="state", id=f"{event.at:.6f}", data=event)
            if job.progress is not None and job.progress != progress:
                progress = job.progress
                yield ServerSentEvent(event="progress", data=progress_view(progress, urls))
            if job.state.is_terminal:
                yield ServerSentEvent(event="end", id=END, data=job_view(job, urls))
                return
            async for place in _places(job, follower, services):
                yield place


@router.get(
    "/v1/events",
    response_class=EventSourceResponse,
    responses=documented(),
    dependencies=[Depends(lasting)],
)
async def of_all(
    key: Caller, services: ServicesOf, urls: UrlsOf, shown: Annotated[QueuesView, Depends(queues)]
) -> AsyncIterator[ServerSentEvent]:
    """All that the page shows, as it changes: `queues`, and `job` for the caller's jobs."""
    with services.hub.watch(key.id or None) as watcher:
        yield ServerSentEvent(event="queues", data=shown)
        while not (services.hub.is_closing or watcher.is_behind):
            await watcher.news.wait()
            watcher.news.clear()
            for job in watcher.take():
                yield ServerSentEvent(event="job", data=job_view(job, urls))
            if watcher.queues is not None:
                now = QueuesView(
                    queues=watcher.queues[0], workers=watcher.queues[1], may_pause=key.is_operator
                )
                if _worth_telling(shown, now):
                    shown = now
                    yield ServerSentEvent(event="queues", data=shown)


async def ended(job: Job, services: Services, wait_s: float, request: Request) -> Job:
    """The job once it has ended, or as it is when the time is up or nobody waits any more.

    Raises what looking raises.
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
    """Wait for news; false as soon as the client is seen to have gone."""
    deadline = time.monotonic() + wait_s
    while not follower.has_news and (left_s := deadline - time.monotonic()) > 0:
        await follower.wait(min(left_s, GONE_S))
        if await request.is_disconnected():
            return False
    return True


async def _places(
    job: Job, follower: Follower, services: Services
) -> AsyncIterator[ServerSentEvent]:
    """Until something happens to the job, or it must be looked at: its place, as that changes."""
    follower.queue = job.queue if job.state is JobState.QUEUED else None
    deadline = time.monotonic() + patience_s(job)
    told: int | None = None
    while (left_s := deadline - time.monotonic()) > 0 and not follower.has_news:
        if follower.queue is not None and follower.position not in (None, told):
            told = follower.position
            wait_s = services.hub.estimate(job.queue, told or 0)
            waits_for = services.hub.waits_for(job.queue)
            place = {"position": told, "estimated_wait_s": wait_s, "waits_for": waits_for}
            yield ServerSentEvent(event="position", data=place)
        await follower.wait(left_s)


def patience_s(job: Job) -> float:
    """Until the job is looked at again: a while, or when its time is up."""
    if job.state is not JobState.QUEUED or job.expires_at is None:
        return LOOK_S
    left_s = job.expires_at - time.time()
    if left_s < -SKEW_S:  # it was started in time, and waits to be tried again
        return LOOK_S
    return min(LOOK_S, max(0.05, left_s))


def _worth_telling(before: QueuesView, now: QueuesView) -> bool:
    """Whether something has changed besides when a worker was heard of last."""
    return before.queues != now.queues or _served(before) != _served(now)


def _served(shown: QueuesView) -> list[WorkerInfo]:
    return [worker.model_copy(update={"seen_at": 0.0}) for worker in shown.workers]
