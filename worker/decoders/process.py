"""The worker's side of one decoder, a process that may die, hang or send invalid replies."""

import asyncio
import os
import resource
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import ImageDecoderCrashed, described
from crossmodal.processes import STDERR, python_module
from crossmodal.vision.fit import Fit
from worker.decoders.protocol import (
    ERRORS,
    LENGTH,
    MAX_MESSAGE,
    OUT_OF_MEMORY,
    Message,
    length_of,
    pack,
    unpack,
)
from worker.decoders.room import Room

START_S = 60.0  # max time for a process to start on a busy machine
KEPT = ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL")
FREES_AT = str(2**20)  # bytes: glibc gives larger blocks back to the system as soon as it can
FIXED = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "OPENCV_LOG_LEVEL": "SILENT",  # errors of a picture are reported to its sender
    "MALLOC_MMAP_THRESHOLD_": FREES_AT,
    "MALLOC_TRIM_THRESHOLD_": FREES_AT,
}


class DecoderUnavailable(ImageDecoderCrashed):
    """No process could be started: no fault of the image."""


class Limits(NamedTuple):
    """The limits of a picture: its pixels, and the bytes of memory that decoding it may take."""

    max_pixels: int
    max_need: int


class Decoder:
    """A process that decodes one picture at a time; the caller must kill it.

    It stays usable after an invalid picture, but not after any other error.
    """

    def __init__(self, program: str, max_memory: int) -> None:
        """Start the process. Raises `DecoderUnavailable`."""
        self._socket, its_end = socket.socketpair()
        self._socket.setblocking(False)
        self._is_ready = False
        with its_end:
            try:
                self._process = subprocess.Popen(
                    python_module(program, str(os.getpid()), str(max_memory)),
                    env=_environment(os.environ),
                    stdin=its_end.fileno(),
                    stdout=STDERR,
                    start_new_session=True,
                )
            except OSError as e:
                self._socket.close()
                raise DecoderUnavailable(f"no image decoder can be started: {described(e)}") from e

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def held(self) -> int:
        """Bytes of its private memory; 0 if the system does not report it."""
        try:
            _, resident, shared, *_ = Path(f"/proc/{self.pid}/statm").read_text().split()
        except (OSError, ValueError):  # another system, or it has just ended
            return 0
        return (int(resident) - int(shared)) * resource.getpagesize()

    async def decode(
        self, data: bytes, fit: Fit, limits: Limits, room: Room, timeout_s: float
    ) -> NDArray[np.uint8]:
        """Decode a file to RGB (H, W, 3), resized by `fit`, once `room` has the memory for it.

        Raises `InvalidImage`, `ImageTooLarge`, `ImageDecoderCrashed` and `DecoderUnavailable`.
        """
        if not self._is_ready:
            await self._start()
        late = (
            f"decoding the image took longer than {timeout_s:g} s and was ended: "
            "shrink it, or raise CROSSMODAL_DECODE_TIMEOUT_S"
        )
        async with self._exchange(timeout_s, late):
            await self._send({"size": len(data), "fit": fit} | limits._asdict())
            await asyncio.get_running_loop().sock_sendall(self._socket, data)
            need = (await self._answer()).get("need")
            if type(need) is not int or need < 0:
                raise ValueError(f"a need of {need!r:.100}")
        async with room.lent(need), self._exchange(timeout_s, late):
            await self._send({"go": True})
            shape = (await self._answer()).get("shape")
            if not _is_shape(shape) or not fit.allows(*shape):
                raise ValueError("a picture of another size")
            height, width = shape
            pixels = await self._read(height * width * 3)
            return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)

    def kill(self) -> None:
        """Kill it at once; `wait` returns when it has ended."""
        self._socket.close()
        self._process.kill()

    async def wait(self) -> int:
        """Wait until it has ended, and return its exit status."""
        status: int = await asyncio.to_thread(self._process.wait)
        return status

    async def _start(self) -> None:
        late = f"it did not start within {START_S:g} s"
        try:
            async with self._exchange(START_S, late):
                if (await self._answer()).get("ready") is not True:
                    raise ValueError('a message other than "ready"')
        except ImageDecoderCrashed as e:
            raise DecoderUnavailable(f"no image decoder can be started: {e}") from e
        self._is_ready = True

    async def _send(self, message: Message) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, pack(message))

    async def _answer(self) -> Message:
        """Return its next map. Raises the error of the picture that it reports."""
        message = unpack(await self._read(length_of(await self._read(LENGTH.size))))
        if "error" not in message:
            return message
        code, text = message["error"], message.get("message")
        if code == OUT_OF_MEMORY:
            raise MemoryError
        if not isinstance(code, str) or code not in ERRORS or not isinstance(text, str):
            raise ValueError(f"an error {code!r:.100}")
        raise ERRORS[code](text[:MAX_MESSAGE])

    async def _read(self, size: int) -> bytes:
        data = bytearray(size)
        view, loop = memoryview(data), asyncio.get_running_loop()
        while view:
            received = await loop.sock_recv_into(self._socket, view)
            if not received:
                raise EOFError
            view = view[received:]
        return bytes(data)

    @asynccontextmanager
    async def _exchange(self, timeout_s: float, late: str) -> AsyncIterator[None]:
        """Limit the time of a request and its reply. Turns failures into `ImageDecoderCrashed`."""
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError as e:
            raise ImageDecoderCrashed(late) from e
        except MemoryError as e:
            raise ImageDecoderCrashed(
                "decoding the image took more memory than its header implies: shrink it"
            ) from e
        except ValueError as e:
            raise ImageDecoderCrashed(f"the image decoder sent {e}") from e
        except (EOFError, OSError) as e:
            self.kill()
            raise ImageDecoderCrashed(f"the image decoder died (status {await self.wait()})") from e


def _is_shape(said: Any) -> TypeGuard[list[int]]:
    return isinstance(said, list) and len(said) == 2 and all(type(n) is int for n in said)


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that Python needs to find its modules, and no secrets."""
    return {name: own[name] for name in KEPT if name in own} | FIXED
