"""A pool of disposable processes that decode untrusted pictures outside the worker itself."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import ImageDecoderCrashed, InvalidImage
from crossmodal.settings import Settings
from crossmodal.vision.fit import Fit
from worker.decoders.process import Decoder, Limits
from worker.decoders.room import Room
from worker.devices import cores

log = logging.getLogger(__name__)

PROGRAM = "worker.decoders"
IDLE_S = 60.0
A_PROCESS = 128 * 10**6  # bytes of the budget for each process of the pool
AT_REST = 32 * 10**6  # bytes of a process that has decoded nothing
PART_OF_FILES = 4  # a quarter of the rest is for files, held here and in their decoder
MOST_ALONE = 4  # times the budget that a picture may take when decoded alone


class Decoders:
    """A pool of at most one process per core, each started when a picture waits and none is free.

    A crash or hang loses only the picture being decoded: the next one gets a new process. A
    process that has been idle for `idle_s`, or keeps more memory than its share, is ended.
    """

    def __init__(self, settings: Settings, program: str = PROGRAM, idle_s: float = IDLE_S) -> None:
        self._program, self._idle_s = program, idle_s
        self._limits = Limits(settings.max_image_pixels, MOST_ALONE * settings.decode_memory)
        self._timeout_s = settings.decode_timeout_s
        most = max(1, min(cores(), settings.decode_memory // A_PROCESS))
        shared = settings.decode_memory - most * AT_REST
        self._files = Room(shared // PART_OF_FILES)
        self._room = Room(shared - shared // PART_OF_FILES)
        self._max_memory = 2 * self._limits.max_need + 8 * settings.max_image_bytes
        self._turns = asyncio.Semaphore(most)
        self._idle: dict[Decoder, asyncio.TimerHandle] = {}
        self._ending: set[asyncio.Task[int]] = set()

    async def decode(
        self, size: int, read: Callable[[], Awaitable[bytes]], fit: Fit
    ) -> NDArray[np.uint8]:
        """Decode the file that `read` returns to upright RGB (H, W, 3), resized by `fit`.

        `size` is the file's length in bytes. Raises `InvalidImage`, `ImageTooLarge`,
        `ImageDecoderCrashed`, `DecoderUnavailable`, and what `read` raises.
        """
        async with self._files.lent(2 * size):
            data = await read()
            async with self._decoder() as decoder:
                return await decoder.decode(data, fit, self._limits, self._room, self._timeout_s)

    async def close(self) -> None:
        """End all idle processes and wait for them; call it once no picture is being decoded."""
        for decoder in [*self._idle]:
            self._end(decoder)
        await asyncio.gather(*self._ending)

    @asynccontextmanager
    async def _decoder(self) -> AsyncIterator[Decoder]:
        """Lend a decoder for one picture, first come, first served; keep it if it is healthy."""
        async with self._turns:
            decoder = self._take()
            try:
                yield decoder
            except InvalidImage:
                self._keep(decoder)
                raise
            except BaseException as e:
                if isinstance(e, ImageDecoderCrashed):
                    log.warning("decoder %s is replaced: %s", decoder.pid, e)
                self._end(decoder)
                raise
            self._keep(decoder)

    def _take(self) -> Decoder:
        """Return the decoder used last, so that surplus ones end as idle, or a new one."""
        while self._idle:
            decoder, end = self._idle.popitem()
            end.cancel()
            if decoder.is_alive:
                return decoder
            self._end(decoder)
        return Decoder(self._program, self._max_memory)

    def _keep(self, decoder: Decoder) -> None:
        if decoder.held > A_PROCESS:  # kept by libraries
            self._end(decoder)
        else:
            loop = asyncio.get_running_loop()
            self._idle[decoder] = loop.call_later(self._idle_s, self._end, decoder)

    def _end(self, decoder: Decoder) -> None:
        if end := self._idle.pop(decoder, None):
            end.cancel()
        decoder.kill()
        ended = asyncio.get_running_loop().create_task(decoder.wait())
        self._ending.add(ended)
        ended.add_done_callback(self._ending.discard)
