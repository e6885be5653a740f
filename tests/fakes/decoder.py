"""A decoder that does what is written behind a picture: python -m tests.fakes.decoder

"poison" kills the process, "tarpit" never comes back, "glutton" wants 2 GB, "garbler" answers
nonsense, "liar" a picture of another size. "gate" waits until a file exists, whose name follows.
"""

import os
import signal
import socket
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossmodal.processes import wait_until
from crossmodal.vision.decode import PictureFile
from worker.decoders.program import run
from worker.decoders.protocol import pack

NEED = b"need="


class Actor(PictureFile):
    """A picture that is read as any, and then does what its file says."""

    def __init__(self, data: bytes, max_pixels: int, side: int | None = None) -> None:
        super().__init__(data, max_pixels, side)
        *_, self._role = data.rpartition(b"IEND\xaeB`\x82")
        if self._role.startswith(NEED):
            self.need = int(self._role.removeprefix(NEED))

    def pixels(self) -> NDArray[np.uint8]:
        _act(self._role)
        return super().pixels()


def _act(role: bytes) -> None:
    match role.partition(b"="):
        case b"poison", _, _:
            os.kill(os.getpid(), signal.SIGSEGV)
        case b"tarpit", _, _:
            threading.Event().wait()
        case b"glutton", _, _:
            bytearray(2 * 10**9)
        case b"garbler", _, _:
            _say(b"\xff" * 64)
        case b"liar", _, _:
            _say(pack({"side": 10_000}))
        case b"gate", _, path:
            wait_until(Path(os.fsdecode(path)).exists, 120)


def _say(data: bytes) -> None:
    with socket.socket(fileno=os.dup(0)) as connection:
        connection.sendall(data)


if __name__ == "__main__":
    run(Actor)
