"""What HTTP asks of any server: HEAD wherever there is GET, what a path allows, its slash."""

from urllib.parse import quote

from starlette.applications import Starlette
from starlette.responses import RedirectResponse
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

IS_HEAD = "crossmodal.is_head"  # of a scope; for whom that makes a difference
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class Heads:
    """Answers HEAD as GET, and leaves out the body."""

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
                has_begun = True  # whoever goes on with a body is told that nobody reads it
                await send({"type": "http.response.body", "body": b""})

        scope["method"], scope[IS_HEAD] = "GET", True
        try:
            await self._app(scope, receive, send_head)
        finally:
            scope["method"] = "HEAD"  # who answers for what has failed must send no body, either


def allowed(app: Starlette, scope: Scope) -> str:
    """The methods that a path has, of whichever of its routes; "" where a mount answers."""
    if "app_root_path" in scope:
        return ""
    found = (m for m in METHODS if _match(app, {**scope, "method": m.replace("HEAD", "GET")}))
    return ", ".join(found)


class Slashes:
    """Leads to the path with or without a slash at its end, where that is a route's.

    Starlette's own redirect names the host that it was called by, which behind a proxy is nobody's:
    this one is relative, so that whatever stands before the path stays.
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
    """Whether a route has the path and the method of a request, or at `least` the path."""
    return any(route.matches(scope)[0].value >= least.value for route in app.routes)
