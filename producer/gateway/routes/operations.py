"""Routes for operators and the page: queues, models, dead letters, health, metrics."""

import asyncio
import logging
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from crossmodal.errors import BrokerUnavailable, DeadLetterNotFound
from crossmodal.jobs.access import ApiKey
from crossmodal.jobs.record import DeadLetter, QueueStatus
from producer.gateway.caller import Caller, Operator, UrlsOf
from producer.gateway.metrics import Figures, Up, figures, render
from producer.gateway.ownership import may_see, missing
from producer.gateway.problems import documented
from producer.gateway.requests import DeadLetterQuery
from producer.gateway.responses import (
    DeadLetterPage,
    DeadLetterView,
    ModelPage,
    QueuesView,
    Replayed,
    Urls,
    job_view,
    model_view,
)
from producer.gateway.services import Services, ServicesOf
from producer.replay import replay
from producer.told import told

log = logging.getLogger(__name__)

router = APIRouter(tags=["operations"])
probes = APIRouter(tags=["operations"])
NO_BACKGROUND = "webhooks and batches wait: start `crossmodal background`"
CHECK_S = 5.0  # timeout of the metrics' write checks of Redis and the store
TEXT: dict[str, Any] = {"content": {"text/plain": {"schema": {"type": "string"}}}}


@router.get("/v1/queues", response_model=QueuesView, responses=documented())
async def queues(key: Caller, services: ServicesOf) -> QueuesView:
    """Return depth, running jobs and oldest wait of each queue, and the workers."""
    found = await asyncio.gather(services.client.queues(), services.client.workers())
    return QueuesView(queues=found[0], workers=found[1], may_pause=key.is_operator)


@router.post("/v1/queues/{queue}/pause", response_model=QueueStatus, responses=documented(403, 404))
async def pause(queue: str, key: Operator, services: ServicesOf) -> QueueStatus:
    """Pause a queue: its running jobs finish, its waiting jobs stay. For operators."""
    return await services.client.pause(queue)


@router.post(
    "/v1/queues/{queue}/resume", response_model=QueueStatus, responses=documented(403, 404)
)
async def resume(queue: str, key: Operator, services: ServicesOf) -> QueueStatus:
    """Resume a paused queue. For operators."""
    return await services.client.resume(queue)


@router.get("/v1/models", response_model=ModelPage, responses=documented())
async def models(key: Caller, services: ServicesOf) -> ModelPage:
    """List all models, with their params, run times and workers."""
    # Not cached: the page calls this when it learns that a worker serves other models.
    known = await services.client.models(max_age_s=0)
    return ModelPage(data=[model_view(known, model) for model in known.values()])


@router.get("/v1/dead-letters", response_model=DeadLetterPage, responses=documented())
async def dead_letters(
    key: Caller, services: ServicesOf, urls: UrlsOf, query: Annotated[DeadLetterQuery, Query()]
) -> DeadLetterPage:
    """List the caller's dead letters, the latest first; an operator sees all."""
    owner = "" if key.is_operator else key.id
    found = await services.ask(services.letters.list(owner=owner, max_count=query.limit))
    letters = [letter for letter in found if _may_see(letter, key)]
    return DeadLetterPage(data=[_letter_view(letter, key, urls) for letter in letters])


@router.post(
    "/v1/dead-letters/{letter_id}/replay",
    status_code=202,
    response_model=Replayed,
    responses=documented(404),
)
async def replay_letter(letter_id: str, key: Caller, services: ServicesOf) -> Replayed:
    """Run a dead letter again, as a new job of the same owner."""
    letter = await _letter(letter_id, services)
    if letter is None or not _may_see(letter, key):
        raise DeadLetterNotFound(missing("dead letter", letter_id, key.id))
    max_queued = key.max_queued if key.id else None
    job_id = await services.ask(replay(services.calls, services.letters, letter, max_queued))
    return Replayed(job=job_id)


@probes.get("/livez", responses={200: TEXT}, response_class=Response)
async def livez() -> Response:
    """Report that the process answers."""
    return Response("ok\n", media_type="text/plain")


@probes.get("/readyz", responses=documented() | {200: TEXT}, response_class=Response)
async def readyz(services: ServicesOf) -> Response:
    """Check that Redis and the object store take writes, as of at most a second ago.

    A second line warns if no background process is alive: then webhooks and batches wait.
    """
    await services.check()
    text = "ok\n" if services.has_background else f"ok\n{NO_BACKGROUND}\n"
    return Response(text, media_type="text/plain")


@probes.get("/metrics", responses=documented() | {200: TEXT}, response_class=Response)
async def metrics(request: Request, key: Operator, services: ServicesOf) -> Response:
    """Return Prometheus metrics of the whole installation, and of this process."""
    accept = request.headers.get("accept", "")
    found, *up = await asyncio.gather(
        _figures(services),
        services.redis_writes.is_well(CHECK_S),
        services.store_writes.is_well(CHECK_S),
    )
    body, media_type = render(found, Up(*up), accept)
    return Response(body, media_type=media_type)


async def _figures(services: Services) -> Figures | None:
    try:
        return await services.ask(figures(services.calls))
    except BrokerUnavailable as e:
        log.warning("the cluster's metrics cannot be read: %s", e)
        return None


async def _letter(letter_id: str, services: Services) -> DeadLetter | None:
    try:
        return await services.ask(services.letters.get(letter_id))
    except DeadLetterNotFound:
        return None


def _may_see(letter: DeadLetter, key: ApiKey) -> bool:
    return key.is_operator or (letter.job is not None and may_see(key.id, letter.job.owner))


def _letter_view(letter: DeadLetter, key: ApiKey, urls: Urls) -> DeadLetterView:
    """Return a dead letter's view; operators see another key's without the job itself."""
    own = letter.job is not None and may_see(key.id, letter.job.owner)
    shown = letter.model_dump(include={"id", "at", "queue", "code", "message"})
    if not key.is_operator:
        shown["message"] = told(letter.code, letter.message)
    return DeadLetterView(**shown, job=job_view(letter.job, urls) if own and letter.job else None)
