"""The program of a decoder: it reads files from its standard input, a socket, and replies there.

It imports what decoding needs and nothing else, and ends with the worker that started it.
"""

import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import ImageTooLarge, InvalidImage
from crossmodal.processes import STDERR, die_with_parent
from crossmodal.vision.decode import PictureFile
from crossmodal.vision.fit import Fit
from crossmodal.vision.preprocess import fit
from worker.decoders.protocol import (
    LENGTH,
    MAX_MESSAGE,
    OUT_OF_MEMORY,
    Message,
    length_of,
    pack,
    unpack,
)

SLACK = 64 * 2**20  # bytes that a picture may take beyond what its header says
STATM = Path("/proc/self/statm")  # of Linux
STATM_DATA = 5

Open = Callable[[bytes, int, int], PictureFile]
"""Reads the header of a file, given its bytes, the max number of pixels and the wanted side."""


def run(open_picture: Open) -> None:
    """Serve the worker that started this process, until it closes the connection."""
    parent, max_memory = (int(argument) for argument in sys.argv[1:])
    die_with_parent(signal.SIGKILL, parent)
    _silence_libraries()
    memory = Memory(max_memory)
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as connection:
        try:
            serve(connection, open_picture, memory)
        except (EOFError, ConnectionError):
            return


def _silence_libraries() -> None:
    """Discard what libraries print about untrusted files, at any length.

    Python's own output to stderr is kept.
    """
    sys.stderr = os.fdopen(os.dup(STDERR), "w", buffering=1)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), STDERR)


def serve(connection: socket.socket, open_picture: Open, memory: "Memory") -> None:
    """Decode one file after the other. Raises `EOFError` once the connection is closed."""
    connection.sendall(pack({"ready": True}))
    while True:
        try:
            pixels = _next(connection, open_picture, memory)
        except InvalidImage as e:
            connection.sendall(pack({"error": e.code, "message": str(e)[:MAX_MESSAGE]}))
        except MemoryError:
            connection.sendall(pack({"error": OUT_OF_MEMORY, "message": ""}))
        else:
            connection.sendall(pack({"shape": pixels.shape[:2]}))
            connection.sendall(pixels.data)


def _next(connection: socket.socket, open_picture: Open, memory: "Memory") -> NDArray[np.uint8]:
    """Decode the next picture as requested; keep nothing of its file."""
    request = receive(connection)
    wanted = Fit(*request["fit"])
    picture = open_picture(read(connection, request["size"]), request["max_pixels"], wanted.side)
    _check_need(picture.need, request["max_need"])
    connection.sendall(pack({"need": picture.need}))
    receive(connection)
    with memory.limited(picture.need + picture.need // 4 + SLACK):
        return fit(picture.pixels(), wanted)


def _check_need(need: int, most: int) -> None:
    if need > most:
        raise ImageTooLarge(
            f"decoding the image takes {need} bytes of memory, {most} are allowed: shrink it, save "
            "it as a JPEG, or raise CROSSMODAL_DECODE_MEMORY"
        )


class Memory:
    """Limits of this process's memory, where the system supports them.

    `most`, in bytes beyond the use at its start, is a hard limit for the life of the process: no
    code in it can raise that.
    """

    def __init__(self, most: int) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold a picture
        self._most = 0
        if STATM.exists():
            _, given = resource.getrlimit(resource.RLIMIT_DATA)
            own = _held() + most
            self._most = own if given == resource.RLIM_INFINITY else min(own, given)
            resource.setrlimit(resource.RLIMIT_DATA, (self._most, self._most))

    @contextmanager
    def limited(self, size: int) -> Iterator[None]:
        """Allow at most `size` bytes more than now.

        What libraries have set up for earlier pictures and keep is thus not counted.
        """
        if not self._most:
            yield
            return
        limit = min(_held() + size, self._most)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, self._most))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (self._most, self._most))


def _held() -> int:
    """Return the bytes that the system counts as this process's data."""
    return int(STATM.read_text().split()[STATM_DATA]) * resource.getpagesize()


def receive(connection: socket.socket) -> Message:
    """Return the worker's next map."""
    return unpack(read(connection, length_of(read(connection, LENGTH.size))))


def read(connection: socket.socket, size: int) -> bytes:
    """Read exactly `size` bytes. Raises `EOFError` if the worker has closed the connection."""
    data = connection.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise EOFError
    return data
