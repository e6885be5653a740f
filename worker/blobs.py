"""Reads and writes of the object store by a worker, in threads because any store may be slow."""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cached_property, partial
from typing import Any, ParamSpec, TypeVar

from crossmodal.errors import ImageTooLarge, InvalidImage
from crossmodal.jobs.ledger import Attempt
from crossmodal.jobs.names import CAPTIONS, result_key
from crossmodal.jobs.record import ImageRef
from crossmodal.kinds.base import ItemParams
from crossmodal.kinds.fields import MAX_SEED, BlobRef
from crossmodal.kinds.images import ImageParams, files_of
from crossmodal.kinds.registry import kind_of
from crossmodal.settings import Settings
from crossmodal.storage import Storage, open_storage
from crossmodal.vision.encode import encode, parameters_text
from worker.host.protocol import Answer

P = ParamSpec("P")
T = TypeVar("T")
MAX_PACKED = 32 * 2**20  # bytes of a bulk message's input, without its largest picture
THREADS = 32  # concurrent operations on the store


class Blobs:
    """A worker's access to the object store; one per process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(THREADS, "storage")

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function in a thread, in the caller's context, and return its result."""
        run = partial(copy_context().run, partial(function, *args, **kwargs))
        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- blocking: to be run by `call` ----------------------------------------------------

    @cached_property
    def store(self) -> Storage:
        # Opened on first use: an unavailable store fails jobs, not the worker's start.
        return open_storage(self._settings)

    def picture(self, image: BlobRef, max_bytes: int) -> bytes:
        """Return the file of a stored picture of at most `max_bytes`.

        Raises `ImageTooLarge`, `InvalidImage` and `StorageUnavailable`.
        """
        try:
            return self.store.get(image, max_bytes)
        except ImageTooLarge as e:
            if max_bytes >= self._settings.max_image_bytes:
                raise
            raise InvalidImage(
                f"{image.key!r} is larger than the {max_bytes} bytes given in its reference: "
                "upload it again, and use the reference that the upload returns"
            ) from e

    def packed(self, blob: BlobRef) -> bytes:
        """Return the input of a bulk message. Raises `ImageTooLarge` and `StorageUnavailable`."""
        return self.store.get(blob, MAX_PACKED + 2 * self._settings.max_image_bytes)

    def put_images(
        self, attempt: Attempt, params: ItemParams, answer: Answer, folder: str = ""
    ) -> tuple[ImageRef, ...]:
        """Store the generated pictures, if any, as `<folder><number>.<format>`."""
        if answer.images is None:
            return ()
        refs, files = [], files_of(params)
        for i, pixels in enumerate(answer.images):
            height, width = pixels.shape[:2]
            text = parameters_text(
                _told(params, i), (width, height), answer.model, answer.bundle_version
            )
            told = text if files.embed_metadata else None
            key = result_key(attempt.job, f"{folder}{i}.{files.format}", attempt.number)
            data = encode(pixels, told, files.format, files.quality)
            blob = self.store.put(key, data, f"image/{files.format}")
            refs.append(ImageRef(**blob.model_dump(), width=width, height=height))
        return tuple(refs)

    def put_preview(self, key: str, data: bytes) -> None:
        """Store a JPEG file in place of the previous one."""
        self.store.put(key, data, "image/jpeg")

    def delete(self, key: str) -> None:
        self.store.delete(key)

    def put_captions(self, attempt: Attempt, captions: list[dict[str, Any]]) -> None:
        """Store the captions of a picture, the likeliest first, as `captions.json`."""
        if captions:
            key = result_key(attempt.job, CAPTIONS, attempt.number)
            self.store.put(key, json.dumps(captions).encode(), "application/json")


def _told(params: ItemParams, number: int) -> dict[str, object]:
    """Return the params to embed in the file of the picture with this number."""
    untold = {"count", "metadata", "model", kind_of(params).picture}
    if isinstance(params, ImageParams):
        untold |= set(ImageParams.model_fields)
    told = {name: value for name, value in params if name not in untold}
    if (seed := told.get("seed")) is not None:
        told["seed"] = (seed + number) % (MAX_SEED + 1)
    return told
