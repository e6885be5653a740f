"""A request that says in two ways how long it is, which two readers may take for two requests."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TWO_WAYS = {"content-length", "transfer-encoding"}


class OneLength:
    """Ends the connection after the answer to such a request (RFC 9112, section 6.1)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        is_odd = scope["type"] == "http" and set(Headers(scope=scope)) >= TWO_WAYS
        await self._app(scope, receive, send_last if is_odd else send)
