"""Defense against request smuggling by Content-Length together with Transfer-Encoding."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

TWO_WAYS = {"content-length", "transfer-encoding"}
CLOSE = (b"connection", b"close")


class OneLength:
    """ASGI middleware that closes the connection after such a request (RFC 9112, section 6.1).

    It adds `Connection: close` to the request, which uvicorn obeys whatever sends the response.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and set(Headers(scope=scope)) >= TWO_WAYS:
            scope["headers"] = [*scope["headers"], CLOSE]
        await self._app(scope, receive, send)
