"""HTTP conventions: HEAD for every GET, a path's allowed methods, trailing slashes."""

from urllib.parse import quote

from starlette.applications import Starlette
from starlette.responses import RedirectResponse
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

IS_HEAD = "crossmodal.is_head"  # the scope's key that marks a HEAD request
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class Heads:
    """ASGI middleware that answers HEAD as GET, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def send_head(message: Message) -> None:
            nonlocal has_begun
            if not has_begun:
                await send(message)
                has_begun = True  # a further body part finds the response complete
                await send({"type": "http.response.body", "body": b""})

        scope["method"], scope[IS_HEAD] = "GET", True
        # A range is for GET alone (RFC 9110, section 14.2).
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"range"]
        try:
            await self._app(scope, receive, send_head)
        finally:
            scope["method"] = "HEAD"  # so that error handlers send no body, either


def allowed(app: Starlette, scope: Scope) -> str:
    """Return the methods that the routes of a path allow; "" inside a mount."""
    if "app_root_path" in scope:
        return ""
    found = (m for m in METHODS if _match(app, {**scope, "method": m.replace("HEAD", "GET")}))
    return ", ".join(found)


class Slashes:
    """ASGI app that redirects to the path with or without a trailing slash, if it has a route.

    Starlette's own redirect names the request's host, which behind a proxy is wrong. This one is
    relative, so that a proxy's path prefix stays.
    """

    def __init__(self, app: Starlette) -> None:
        self._app = app
        self._not_found = app.router.default

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        bare = path.removesuffix("/")
        other = bare if bare != path else f"{path}/"
        answer: ASGIApp = self._not_found
        if (
            scope["type"] == "http"
            and bare
            and _match(self._app, {**scope, "path": other}, Match.PARTIAL)
        ):
            name = quote(bare.rpartition("/")[2], safe="")
            where = f"./{name}/" if bare == path else f"../{name}"
            query = scope["query_string"].decode("latin-1")
            answer = RedirectResponse(f"{where}?{query}" if query else where)
        await answer(scope, receive, send)


def _match(app: Starlette, scope: Scope, least: Match = Match.FULL) -> bool:
    """Whether a route matches path and method, or with `Match.PARTIAL` at least the path."""
    return any(route.matches(scope)[0].value >= least.value for route in app.routes)
