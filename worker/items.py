"""The steps of one request, either a single job or one item of a bulk message.

Its picture is fetched and decoded, the model host infers, and the output is encoded and stored.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossmodal import tracing
from crossmodal.errors import CrossmodalError
from crossmodal.kinds.base import ItemParams
from crossmodal.kinds.registry import kind_of
from crossmodal.kinds.task import Task
from crossmodal.settings import Settings
from worker.blobs import Blobs
from worker.cancel import CancelToken
from worker.decoders.pool import Decoders
from worker.host.client import HostClient
from worker.host.pipeline import HostRequest
from worker.host.protocol import Answer
from worker.host.watch import no_step
from worker.progress import ProgressTeller

Image = NDArray[np.uint8]  # RGB (side, side, 3)
BULK_DECODES = 4  # bulk pictures decoded at once: an interactive one waits for no more


class Items:
    """The steps of all requests of a worker; one per process."""

    def __init__(self, settings: Settings, blobs: Blobs, decoders: Decoders) -> None:
        self._max_bytes = settings.max_image_bytes
        self._blobs = blobs
        self._decoders = decoders
        self._bulk_decodes = asyncio.Semaphore(BULK_DECODES)

    async def image(self, params: ItemParams, host: HostClient) -> Image | None:
        """Return the picture that the params name, if any, as the host's model needs it."""
        ref = kind_of(params).image_of(params)
        if ref is None:
            return None
        size = self._max_bytes if ref.size is None else min(ref.size, self._max_bytes)
        with tracing.span("fetch input"):
            fit = (await host.info()).fit
            return await self._decoders.decode(
                size, lambda: self._blobs.call(self._blobs.picture, ref, size), fit
            )

    async def bulk_image(
        self, params: ItemParams, packed: bytes | None, host: HostClient
    ) -> Image | None:
        """Return the same for a bulk item, whose picture may be `packed` with it."""
        async with self._bulk_decodes:
            if packed is None:
                return await self.image(params, host)

            async def read() -> bytes:
                return packed

            fit = (await host.info()).fit
            return await self._decoders.decode(len(packed), read, fit)

    async def infer(
        self,
        token: CancelToken,
        host: HostClient,
        task: Task,
        requests: Sequence[HostRequest],
        *,
        bulk: bool = False,
        progress: ProgressTeller | None = None,
    ) -> list[Answer | CrossmodalError]:
        """Return a host's answer to each request; waiting for the device costs no run time."""

        def on_device(size: int) -> None:
            token.resume()
            if progress is not None:
                progress.begin()

        with token.off_the_clock():
            return await host.run(
                task,
                requests,
                alone=token.attempt.is_suspect,
                bulk=bulk,
                on_device=on_device,
                on_step=no_step if progress is None else progress.step,
                audience=None if progress is None else progress.audience,
            )

    def store(
        self, token: CancelToken, params: ItemParams, answer: Answer, folder: str = ""
    ) -> dict[str, Any]:
        """Encode and store pictures; return the fields that job and item results share."""
        return {
            "images": self._blobs.put_images(token.attempt, params, answer, folder),
            "captions": answer.captions,
            "seed": getattr(params, "seed", None),
            "unknown_words": answer.unknown_words,
            "suggestions": answer.suggestions,
            "warnings": answer.warnings,
        }
