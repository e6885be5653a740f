"""A request that says in two ways how long it is, which two readers may take for two requests."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

TWO_WAYS = {"content-length", "transfer-encoding"}
CLOSE = (b"connection", b"close")


class OneLength:
    """Ends the connection after the answer to such a request (RFC 9112, section 6.1).

    It is answered as one whose sender asks for that, which uvicorn heeds whoever answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and set(Headers(scope=scope)) >= TWO_WAYS:
            scope["headers"] = [*scope["headers"], CLOSE]
        await self._app(scope, receive, send)
