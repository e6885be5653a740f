"""No body is read further than it may be long, whether it says its length or not."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crossmodal.settings import Settings
from producer.gateway.problems import BodyTooLarge

OF_FILES = ("/v1/batches", "/v1/files")
OVERHEAD = 65_536  # bytes of a body beside its picture


class BodyLimit:
    """Refuses bodies of more bytes than a picture in base64, or than a file of requests may have.

    Starlette's own limit answers in plain text, whatever the application says of errors.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._usual = settings.max_image_bytes * 4 // 3 + OVERHEAD
        self._of_batch = settings.max_batch_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._of_batch if scope["path"] in OF_FILES else self._usual
        length = Headers(scope=scope).get("content-length", "")
        read, said = 0, int(length) if length.isdecimal() else 0

        async def receive_some() -> Message:
            nonlocal read
            if said > limit:
                raise _too_large(said, limit)
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise _too_large(read, limit)
            return message

        await self._app(scope, receive_some, send)


def _too_large(size: int, limit: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body has {size} bytes or more, {limit} are allowed: send less, or raise "
        "CROSSMODAL_MAX_IMAGE_BYTES or CROSSMODAL_MAX_BATCH_BYTES"
    )
