"""A decoder that does what is written behind a picture: python -m tests.fakes.decoder

"poison" kills the process, "tarpit" never returns, "glutton" allocates 2 GB, "garbler" answers
garbage, "liar" a picture of another size, "stranger" an error that no decoder has, "hoarder" keeps
100 MB for ever and uses none of it, "filler" 200 MB that it has written to, "chatterer" prints as
libraries do. "need=N" is an ordinary picture that reports a need of N bytes.
"""

import os
import signal
import socket
import threading

import numpy as np
from numpy.typing import NDArray

from crossmodal.processes import STDERR
from crossmodal.vision.decode import PictureFile
from worker.decoders.program import run
from worker.decoders.protocol import pack

NEED = b"need="
KEPT: list[bytearray] = []


class Actor(PictureFile):
    """A picture that is read as any other, and then does what its file says."""

    def __init__(self, data: bytes, max_pixels: int, side: int | None = None) -> None:
        super().__init__(data, max_pixels, side)
        *_, self._role = data.rpartition(b"IEND\xaeB`\x82")
        if self._role == b"filler":
            KEPT.append(bytearray(b"1") * 200 * 10**6)
        if self._role == b"hoarder":
            KEPT.append(bytearray(100 * 10**6))
        if self._role.startswith(NEED):
            self.need = int(self._role.removeprefix(NEED))

    def pixels(self) -> NDArray[np.uint8]:
        _act(self._role)
        return super().pixels()


def _act(role: bytes) -> None:
    match role:
        case b"poison":
            os.kill(os.getpid(), signal.SIGSEGV)
        case b"tarpit":
            threading.Event().wait()
        case b"glutton":
            bytearray(2 * 10**9)
        case b"garbler":
            _say(b"\xff" * 64)
        case b"liar":
            _say(pack({"shape": [10_000, 10_000]}))
        case b"chatterer":
            os.write(STDERR, b"a library's remark\n" * 999)
        case b"stranger":
            _say(pack({"error": "internal_error", "message": ""}))


def _say(data: bytes) -> None:
    with socket.socket(fileno=os.dup(0)) as connection:
        connection.sendall(data)


if __name__ == "__main__":
    run(Actor)
