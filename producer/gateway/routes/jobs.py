"""`/v1/jobs`: submit, get, list, cancel, retry and delete jobs."""

import asyncio
import re
import time
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from crossmodal.errors import BrokerUnavailable, Forbidden
from crossmodal.jobs.origin import Origin
from crossmodal.jobs.params import Params, queue_of, task_of
from crossmodal.jobs.record import Job, JobState
from crossmodal.net import check_public
from crossmodal.tracing import checked, current
from producer.gateway.body import OPENAPI, json_of, read_request, taking
from producer.gateway.caller import Caller, ListInTurn, OwnJob, UrlsOf, origin_of
from producer.gateway.pictures import params_of
from producer.gateway.problems import BadRequest, documented, linked
from producer.gateway.requests import CancelRequest, JobQuery, JobRequest
from producer.gateway.responses import Canceled, JobPage, JobView, ResultView, Urls, job_view
from producer.gateway.services import Services, ServicesOf
from producer.gateway.waiting import ended, view
from producer.handle import result_of

MAX_WAIT_S = 60.0
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:$|[,;])")
_KEY = re.compile(r"[!-~]{1,160}")

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post(
    "",
    status_code=202,
    response_model=JobView,
    openapi_extra=OPENAPI,
    responses=documented(404, 413, 415)
    | {
        200: {"model": JobView, "description": "The job has ended within `Prefer: wait=N`."},
        202: {
            "description": "The job is kept: it will end, whatever crashes.",
            "links": linked(
                "job_id",
                {
                    "look": "~1v1~1jobs~1{job_id}/get",
                    "result": "~1v1~1jobs~1{job_id}~1result/get",
                    "events": "~1v1~1jobs~1{job_id}~1events/get",
                    "cancel": "~1v1~1jobs~1{job_id}~1cancel/post",
                    "retry": "~1v1~1jobs~1{job_id}~1retry/post",
                    "delete": "~1v1~1jobs~1{job_id}/delete",
                },
            ),
        },
    },
)
async def submit(
    request: Request,
    response: Response,
    key: Caller,
    services: ServicesOf,
    urls: UrlsOf,
    idempotency_key: Annotated[
        str | None,
        Header(
            max_length=160,
            description="The same key and body give the same job; 1 to 160 characters.",
        ),
    ] = None,
    traceparent: Annotated[
        str | None,
        Header(max_length=100, description="Kept with the job; its spans are part of that trace."),
    ] = None,
    prefer: Annotated[
        str | None,
        Header(
            max_length=200, description="`wait=N` waits up to N seconds, max 60, for the job's end."
        ),
    ] = None,
) -> Any:
    """Submit a job. The body is JSON, or a form with the picture as its `file`."""
    if idempotency_key is not None and not _KEY.fullmatch(idempotency_key):
        raise BadRequest("Idempotency-Key is not 1 to 160 visible ASCII characters")
    wanted = await read_request(request, services.settings)
    if wanted.webhook_url is not None:
        check_public(wanted.webhook_url, services.settings.allow_private_urls, "webhook_url")
    params = await params_of(wanted, key, services)
    trace = current() or checked(traceparent)
    origin = origin_of(key, urls, wanted.webhook_url, wanted.webhook_events, trace)
    job_id = await _submit(wanted, params, origin, services, idempotency_key)
    wait_s = _wait_s(prefer)
    try:
        job = await services.client.record(job_id)
        if wait_s and not job.state.is_terminal and services.connections.has_room(key.id):
            response.headers["Preference-Applied"] = f"wait={wait_s:g}"
            job = await ended(job, services, wait_s, request)
        return await _accepted(job, response, services, urls, waited=bool(wait_s))
    except BrokerUnavailable:  # the job is accepted, and must not be sent twice
        response.headers["Location"] = urls.job(job_id)
        return job_view(_as_sent(job_id, params), urls)


@router.get("", response_model=JobPage, responses=documented(), dependencies=[ListInTurn])
async def list_jobs(
    key: Caller, services: ServicesOf, urls: UrlsOf, query: Annotated[JobQuery, Query()]
) -> JobPage:
    """List the caller's jobs, the latest first; a page may have fewer than `limit`."""
    page = await services.client.jobs(
        key.id, state=query.state, task=query.task, cursor=query.cursor, limit=query.limit
    )
    data = await asyncio.gather(*(view(job, services, urls) for job in page.jobs))
    return JobPage(data=data, next_cursor=page.next_cursor)


@router.post(
    "/cancel",
    response_model=Canceled,
    responses=documented(413, 415),
    openapi_extra=taking(CancelRequest, {"state": "queued"}),
)
async def cancel_all(
    key: Caller, services: ServicesOf, wanted: Annotated[CancelRequest, json_of(CancelRequest)]
) -> Canceled:
    """Cancel all of the caller's jobs that have not ended, or those that match the body."""
    if wanted.key is not None and wanted.key != key.id and not key.is_operator:
        raise Forbidden("only operators may cancel the jobs of another key: leave out `key`")
    owner = {None: key.id, "*": None}.get(wanted.key, wanted.key)
    count = await services.client.cancel_all(
        owner,
        task=wanted.task,
        model=wanted.model,
        state=None if wanted.state is None else JobState(wanted.state),
    )
    return Canceled(canceled=count)


@router.get("/{job_id}", response_model=JobView, responses=documented(404))
async def look(job: OwnJob, services: ServicesOf, urls: UrlsOf) -> JobView:
    """Return state, attempt, place in the queue, estimated wait, timings, and any result."""
    return await view(job, services, urls)


@router.get("/{job_id}/result", response_model=ResultView, responses=documented(404, 409, 410))
async def result(job: OwnJob, urls: UrlsOf) -> Any:
    """Return the job's result; 409 while there is none yet, or if the job has failed."""
    result_of(job)  # raises if there is none
    return job_view(job, urls).result


@router.post("/{job_id}/cancel", response_model=JobView, responses=documented(404))
async def cancel(job: OwnJob, services: ServicesOf, urls: UrlsOf) -> JobView:
    """Cancel the job unless it has ended; the returned state says which."""
    await services.client.cancel(job.id)
    return await view(await services.client.record(job.id), services, urls)


@router.post(
    "/{job_id}/retry", status_code=202, response_model=JobView, responses=documented(404, 409)
)
async def retry(
    job: OwnJob, response: Response, key: Caller, services: ServicesOf, urls: UrlsOf
) -> Any:
    """Submit a failed, canceled or expired job as a new job; repeated calls make one job."""
    max_queued = key.max_queued if key.id else None
    handle = await services.client.retry(job.id, max_queued=max_queued)
    return await _accepted(await services.client.record(handle.id), response, services, urls)


@router.delete("/{job_id}", status_code=204, responses=documented(404, 409))
async def delete(job: OwnJob, services: ServicesOf) -> None:
    """Delete the record of a job that has ended, and the blobs that it has stored."""
    await services.call_store(services.sync.delete, job.id)


def _as_sent(job_id: str, params: Params) -> Job:
    return Job(
        id=job_id,
        task=task_of(params),
        queue=str(queue_of(params)),
        state=JobState.QUEUED,
        attempt=0,
        params=params.model_dump(mode="json"),
        created_at=time.time(),
    )


def _wait_s(prefer: str | None) -> float:
    found = _WAIT.search(prefer or "")
    return min(float(found.group(1)), MAX_WAIT_S) if found else 0.0


async def _submit(
    wanted: JobRequest,
    params: Params,
    origin: Origin,
    services: Services,
    idempotency_key: str | None,
) -> str:
    has_owner = idempotency_key and origin.owner
    own = f"{origin.owner}:{idempotency_key}" if has_owner else idempotency_key
    handle = await services.client.submit(
        params,
        idempotency_key=own,
        expires_in_s=wanted.expires_in_s,
        origin=origin,
        priority=wanted.priority,
        keep_s=wanted.keep_s,
    )
    return handle.id


async def _accepted(
    job: Job, response: Response, services: Services, urls: Urls, *, waited: bool = False
) -> JobView:
    """Return the answer to a submission: 200 if `waited` until the job's end, else 202."""
    response.headers["Location"] = urls.job(job.id)
    found = await view(job, services, urls)
    if waited and job.state.is_terminal:
        response.status_code = 200
    else:
        response.headers["Retry-After"] = str(max(1, min(60, round(found.estimated_wait_s or 1))))
    return found
