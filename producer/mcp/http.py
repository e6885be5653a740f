"""The MCP server over HTTP: API keys, limits, and protection against DNS rebinding."""

from collections.abc import Sequence
from typing import Any

from mcp.server import Server
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from crossmodal.addresses import LOOPBACK
from crossmodal.errors import BodyTooLarge, BodyTooSlow, CrossmodalError, RateLimited, Unauthorized
from crossmodal.jobs.access import ANYBODY, ApiKey, ApiKeys
from crossmodal.settings import Settings
from producer.aio import AsyncClient
from producer.http.bodies import BodyLimits, largest_body
from producer.http.connections import Connections
from producer.http.lengths import OneLength
from producer.http.manners import Slashes
from producer.http.overload import KINDS, overload
from producer.http.stopping import Stopping
from producer.mcp.server import Context
from producer.told import told_error

PATH = "/mcp"
STATUSES = {BodyTooLarge: 413, BodyTooSlow: 408, RateLimited: 429}  # all others: 503


class KeyToken(AccessToken):
    """The SDK's token with its API key."""

    key: ApiKey


class Keys:
    """The SDK's verifier of tokens: API keys; each session belongs to one key."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._keys = ApiKeys(client.sync.settings)

    async def verify_token(self, token: str) -> AccessToken | None:
        """Implement the SDK's `TokenVerifier`."""
        try:
            key = await self._client.run(self._keys.find(token))
        except Unauthorized:
            return None
        return KeyToken(token=token, client_id=key.id, scopes=[], key=key)

    async def of(self, context: Context) -> ApiKey:
        """Return the key of a call, and count the call. Raises `Unauthorized`, `RateLimited`."""
        key = None if context.request is None else _key_of(context.request.scope)
        if key is None:
            raise Unauthorized("an API key is needed: send the header Authorization: Bearer cm_…")
        await self._client.run(self._keys.throttle(key))
        return key


def _key_of(scope: Scope) -> ApiKey | None:
    """Return the key of a request that the SDK has authenticated, or None."""
    user = scope.get("user")
    token = user.access_token if isinstance(user, AuthenticatedUser) else None
    return token.key if isinstance(token, KeyToken) else None


def _owner_of(scope: Scope) -> str:
    key = _key_of(scope)
    return "" if key is None else key.id


async def anybody(_: Context) -> ApiKey:
    """Return the owner of all calls to a server without API keys."""
    return ANYBODY


def make_app(
    server: Server[Any], settings: Settings, keys: Keys | None, names: Sequence[str]
) -> ASGIApp:
    """Return the application at `/mcp`; it accepts requests to these host names and loopback."""
    auth = AuthSettings(issuer_url="http://localhost", resource_server_url=None)  # type: ignore[arg-type]
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        max_request_body_size=largest_body(settings),
        transport_security=_only_to(names, settings),
        auth=None if keys is None else auth,
        token_verifier=keys,
    )
    app.router.redirect_slashes, app.router.default = False, Slashes(app)
    app.add_middleware(Answering)
    app.user_middleware += [  # after authentication
        Middleware(OpenRequests),
        Middleware(BodyLimits, settings=settings, owner_of=_owner_of),
    ]
    app.add_middleware(OneLength)
    app.add_middleware(Stopping)
    return app


def _only_to(names: Sequence[str], settings: Settings) -> TransportSecuritySettings:
    """Return the allowed hosts and origins; a page that uses DNS rebinding has another host."""
    hosts = [f"[{name}]" if ":" in name else name for name in (*LOOPBACK, *names)]
    hosts += [f"{host}:*" for host in hosts]
    origins = [f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts]
    return TransportSecuritySettings(
        allowed_hosts=hosts, allowed_origins=[*origins, *settings.allowed_origins]
    )


class OpenRequests:
    """Middleware that counts each key's open requests, streams included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._connections = Connections()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._connections.one(_owner_of(scope)):
            await self._app(scope, receive, send)


class Answering:
    """Middleware that answers errors before MCP begins, as of Redis, or of a request's body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except (CrossmodalError, *KINDS) as error:
            e = error if isinstance(error, CrossmodalError) else overload(error)
            if e is None:
                raise
            body = {"error": e.code, "error_description": told_error(e)}
            status = next((STATUSES[kind] for kind in type(e).__mro__ if kind in STATUSES), 503)
            # After a timeout, the rest of the body may still arrive.
            headers = {"Connection": "close"} if status == 408 else None
            await JSONResponse(body, status, headers)(scope, receive, send)
