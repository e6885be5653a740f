"""Authentication of callers by API key, what they may access, and the origin of their jobs."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request
from fastapi.security import (
    HTTPAuthorizationCredentials,
    HTTPBasic,
    HTTPBasicCredentials,
    HTTPBearer,
)
from starlette.requests import HTTPConnection
from starlette.types import Scope

from crossmodal.addresses import LOOPBACK
from crossmodal.errors import Forbidden, Unauthorized
from crossmodal.jobs.access import ANYBODY, ApiKey
from crossmodal.jobs.origin import HookEvent, Origin, Webhook
from crossmodal.jobs.record import Job
from producer.gateway.ownership import own_record
from producer.gateway.responses import Urls
from producer.gateway.services import Services, ServicesOf

bearer = HTTPBearer(auto_error=False, description="An API key: `crossmodal keys create NAME`.")


class Passwords(HTTPBasic):
    """HTTP Basic authentication that treats unreadable credentials as missing."""

    async def __call__(self, request: HTTPConnection) -> HTTPBasicCredentials | None:  # type: ignore[override]
        try:
            return await super().__call__(request)
        except HTTPException:
            return None


basic = Passwords(
    scheme_name="HTTPBasic", auto_error=False, description="An API key as the password of any user."
)
OWNER = "crossmodal.owner"  # ASGI scope key: the request's owner, once known
BASIC = "/sdapi/"  # prefix of routes whose clients support HTTP Basic only


async def caller(
    request: Request,
    services: ServicesOf,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> AsyncIterator[ApiKey]:
    """Yield the caller's API key; the request counts as open until it is answered."""
    key = await _key_of(request, services, credentials)
    request.scope[OWNER] = key.id
    with services.connections.one(key.id):
        yield key


def owner_of(scope: Scope) -> str:
    """Return the owner of a request; "" before `caller` has found it."""
    return str(scope.get(OWNER, ""))


async def _key_of(
    request: Request, services: Services, credentials: HTTPAuthorizationCredentials | None
) -> ApiKey:
    """Return a request's API key, rate-limited; `ANYBODY` if the gateway needs no keys."""
    if not services.needs_keys:
        _check_place(request, services)
        return ANYBODY
    token = await _password(request, services) if credentials is None else credentials.credentials
    if token is None:
        raise Unauthorized("an API key is needed: send the header Authorization: Bearer cm_…")
    key = await services.ask(services.keys.find(token))
    await services.ask(services.keys.throttle(key))
    return key


async def _password(request: Request, services: Services) -> str | None:
    """Return the API key sent as a Basic password, on routes that allow it.

    Browsers resend Basic credentials by themselves, so pages of other sites are refused.
    """
    given = await basic(request) if request.url.path.startswith(BASIC) else None
    if given is None:
        return None
    _check_site(request, services)
    return given.password


def _check_place(request: Request, services: Services) -> None:
    """Raise `Forbidden` for requests by pages of other sites, on a gateway without keys.

    DNS rebinding shows in the Host header; another site's form or script, in the Origin.
    """
    host = _host(f"//{request.headers.get('host', '')}")
    ours = {*LOOPBACK, urlsplit(services.settings.public_url).hostname}
    if host not in ours:
        raise Forbidden(
            f"this gateway needs no API keys, and so accepts requests to {', '.join(LOOPBACK)} "
            f"only, not to {host[:100]!r}: start it with --keys, or set CROSSMODAL_PUBLIC_URL"
        )
    _check_site(request, services)


def _check_site(request: Request, services: Services) -> None:
    """Raise `Forbidden` for a request by a page of a site that is not allowed."""
    origin = request.headers.get("origin", "")
    cross_site = request.headers.get("sec-fetch-site") == "cross-site"
    elsewhere = origin and _place(origin) != request.headers.get("host")
    if (cross_site or elsewhere) and origin not in services.settings.allowed_origins:
        site = origin[:100] or "another site"
        raise Forbidden(
            f"pages of {site} may not call this gateway: CROSSMODAL_CORS_ORIGINS lists the "
            "sites that may"
        )


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _place(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


Caller = Annotated[ApiKey, Depends(caller)]


async def in_turn(key: Caller, services: ServicesOf) -> AsyncIterator[None]:
    """Wait for the key's turn: lists may read many records, so each key runs one at a time."""
    async with services.connections.turn(key.id):
        yield


ListInTurn = Depends(in_turn)


async def lasting(key: Caller, services: ServicesOf) -> None:
    """Check that the key may hold one more long request open. Raises `RateLimited`."""
    services.connections.check_room(key.id)


async def operator(key: Caller) -> ApiKey:
    """Return the caller's key if it is an operator's. Raises `Forbidden`."""
    if not key.is_operator:
        raise Forbidden("this is for operators: `crossmodal keys create NAME --operator`")
    return key


Operator = Annotated[ApiKey, Depends(operator)]


async def own_job(job_id: str, key: Caller, services: ServicesOf) -> Job:
    """Return the caller's job. Raises `JobNotFound`, also for a job of another owner."""
    return await own_record(job_id, key.id, services.client)


OwnJob = Annotated[Job, Depends(own_job)]


async def urls(request: Request, services: ServicesOf) -> Urls:
    """Return the builder of URLs that the caller can reach."""
    return Urls(services.settings.public_url or str(request.base_url))


UrlsOf = Annotated[Urls, Depends(urls)]


def origin_of(
    key: ApiKey,
    urls: Urls,
    url: str | None,
    events: Sequence[HookEvent],
    traceparent: str | None = None,
) -> Origin:
    """Return a job's origin, as the ledger keeps it: owner, limit, trace, webhook."""
    webhook = Webhook(url=url, events=tuple(events), base=urls.base) if url else None
    return Origin(key.id, key.max_queued if key.id else None, traceparent, webhook)
