"""The answer to requests that a server cancels because it stops."""

import asyncio

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAID = "this server is being stopped: ask again in a moment\n"


class Stopping:
    """ASGI middleware that answers 503 to a request that is canceled, such as a slow upload.

    Without it, uvicorn logs each as an exception of the application. A response that has begun is
    broken off.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def sending(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            if not has_begun:
                answer = PlainTextResponse(SAID, 503, {"Retry-After": "1", "Connection": "close"})
                await answer(scope, receive, send)
