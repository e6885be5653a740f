"""Server-sent events: of one job until its end, and of all that the page shows.

All checks that may refuse a request run before its stream begins. Later failures are retried,
and a client that was cut off resumes after `Last-Event-ID`.
"""

import re
import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent

from crossmodal.errors import BrokerUnavailable, JobNotFound
from crossmodal.jobs.record import Job, JobState, Progress, WorkerInfo
from producer.gateway import problems
from producer.gateway.caller import Caller, OwnJob, UrlsOf, lasting
from producer.gateway.hub import Follower
from producer.gateway.problems import BadRequest, NothingMore, documented
from producer.gateway.responses import QueuesView, job_view, progress_view
from producer.gateway.routes.operations import queues
from producer.gateway.services import Services, ServicesOf
from producer.gateway.waiting import AGAIN_S, patience_s

END = "end"  # the id of a job's last event
_ID = re.compile(r"\d{1,12}(\.\d{1,6})?")

router = APIRouter(tags=[problems.EVENTS_TAG])


async def after(
    last_event_id: Annotated[
        str | None, Header(max_length=40, description="The id of the last event that has arrived.")
    ] = None,
) -> float:
    """Return the time of the client's last event, or 0. Raises `BadRequest`, `NothingMore`."""
    if last_event_id == END:
        raise NothingMore
    if last_event_id and not _ID.fullmatch(last_event_id):
        raise BadRequest(f"Last-Event-ID {last_event_id!r} is not an event id")
    return float(last_event_id or 0.0)


@router.get(
    "/v1/jobs/{job_id}/events",
    response_class=EventSourceResponse,
    responses=documented(404)
    | {204: {"description": "`Last-Event-ID` is that of the `end`: no more events come."}},
    dependencies=[Depends(lasting)],
)
async def of_job(
    job: OwnJob, services: ServicesOf, urls: UrlsOf, seen: Annotated[float, Depends(after)]
) -> AsyncIterator[ServerSentEvent]:
    """Stream the job's events until its end, from its beginning or after `Last-Event-ID`.

    `state` events have ids, and so has the `end`, which contains the job; `position` events have
    the place in the queue, `progress` events the number of steps done.
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
    """Stream what the page shows: `queues` events, and `job` events of the caller's jobs."""
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


async def _places(
    job: Job, follower: Follower, services: Services
) -> AsyncIterator[ServerSentEvent]:
    """Yield the job's place when it changes, until other news or the job's next poll."""
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


def _worth_telling(before: QueuesView, now: QueuesView) -> bool:
    """Return whether anything but the workers' `seen_at` has changed."""
    return before.queues != now.queues or _served(before) != _served(now)


def _served(shown: QueuesView) -> list[WorkerInfo]:
    return [worker.model_copy(update={"seen_at": 0.0}) for worker in shown.workers]
