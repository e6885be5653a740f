"""Who calls, and whether they may."""

from collections.abc import AsyncIterator
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
from crossmodal.jobs.record import Job
from producer.gateway.ownership import own_record
from producer.gateway.services import Services, ServicesOf
from producer.gateway.shapes import Urls

bearer = HTTPBearer(auto_error=False, description="An API key: `crossmodal keys create NAME`.")


class Passwords(HTTPBasic):
    """A name and a password; what cannot be read as such is none, and the caller has no key."""

    async def __call__(self, request: HTTPConnection) -> HTTPBasicCredentials | None:  # type: ignore[override]
        try:
            return await super().__call__(request)
        except HTTPException:
            return None


basic = Passwords(
    scheme_name="HTTPBasic", auto_error=False, description="An API key as the password of any user."
)
OWNER = "crossmodal.owner"  # in a scope: whose the request is, once that is known
BASIC = "/sdapi/"  # what routes begin with whose clients know no other way


async def caller(
    request: Request,
    services: ServicesOf,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> AsyncIterator[ApiKey]:
    """Whose a request is; it counts as open until it has been answered."""
    key = await _key_of(request, services, credentials)
    request.scope[OWNER] = key.id
    with services.connections.one(key.id):
        yield key


def owner_of(scope: Scope) -> str:
    """Whose a request is, as far as `caller` has found it."""
    return str(scope.get(OWNER, ""))


async def _key_of(
    request: Request, services: Services, credentials: HTTPAuthorizationCredentials | None
) -> ApiKey:
    """The API key of a request, its call counted; `ANYBODY` where none is asked for."""
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
    """The API key that comes as a password, where one may.

    A browser sends it again by itself: no page of another site may have it do that.
    """
    given = await basic(request) if request.url.path.startswith(BASIC) else None
    if given is None:
        return None
    _check_site(request, services)
    return given.password


def _check_place(request: Request, services: Services) -> None:
    """Without keys, no page of another site may speak for the person before the browser.

    A name of its own that points here (DNS rebinding) has another Host; a form or a script of
    its own has another Origin.
    """
    host = _host(f"//{request.headers.get('host', '')}")
    ours = {*LOOPBACK, urlsplit(services.settings.public_url).hostname}
    if host not in ours:
        raise Forbidden(
            f"this gateway asks for no API keys and so answers to {', '.join(LOOPBACK)} only, not "
            f"to {host[:100]!r}: start it with --keys, or set CROSSMODAL_PUBLIC_URL"
        )
    _check_site(request, services)


def _check_site(request: Request, services: Services) -> None:
    """Raise `Forbidden` for a page of another site than those that may."""
    origin = request.headers.get("origin", "")
    cross_site = request.headers.get("sec-fetch-site") == "cross-site"
    elsewhere = origin and _place(origin) != request.headers.get("host")
    if (cross_site or elsewhere) and origin not in services.settings.allowed_origins:
        site = origin[:100] or "another site"
        raise Forbidden(f"a page of {site} may not call for whoever is before the browser")


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
    """What a list depends on, which may read many records: a key has one made at a time."""
    async with services.connections.turn(key.id):
        yield


ListInTurn = Depends(in_turn)


async def operator(key: Caller) -> ApiKey:
    """A caller who may see what is everybody's. Raises `Forbidden`."""
    if not key.is_operator:
        raise Forbidden("this is for operators: `crossmodal keys create NAME --operator`")
    return key


Operator = Annotated[ApiKey, Depends(operator)]


async def own_job(job_id: str, key: Caller, services: ServicesOf) -> Job:
    """The job, if it is the caller's; another's is as if it were not there."""
    return await own_record(job_id, key.id, services.client)


OwnJob = Annotated[Job, Depends(own_job)]


async def urls(request: Request, services: ServicesOf) -> Urls:
    """URLs as the caller can use them."""
    return Urls(services.settings.public_url or str(request.base_url))


UrlsOf = Annotated[Urls, Depends(urls)]
