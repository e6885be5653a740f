"""A model host that does at the other end of the socket whatever a test wants it to."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from crossmodal.jobs.names import Task
from crossmodal.jobs.params import Txt2ImgParams
from worker.host.client import HostClient
from worker.host.protocol import LENGTH, Answer, pack, unpack

Behaviour = Callable[[socket.socket, int], None]
PARAMS = Txt2ImgParams(prompt="a circle", seed=1)


def reply(name: str) -> bytes:
    answers = [{"batch": [1, 0.0, 0.0]}]
    return pack({"ok": {"model": name, "bundle_version": "v", "answers": answers}})


@pytest.fixture
def hung_up() -> threading.Semaphore:
    """Released each time that the host has closed a connection."""
    return threading.Semaphore(0)


@pytest.fixture
def serve(tmp_path: Path, hung_up: threading.Semaphore) -> Iterator[Callable[[Behaviour], Path]]:
    """Serve connections one after the other by a given behaviour."""
    path = tmp_path / "host.sock"
    listener = socket.socket(socket.AF_UNIX)

    def start(behave: Behaviour) -> Path:
        listener.bind(str(path))
        listener.listen()

        def run() -> None:
            number = 0
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, suppress(OSError):  # the client may be gone
                    behave(connection, number)
                hung_up.release()
                number += 1

        threading.Thread(target=run, daemon=True).start()
        return path

    yield start
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def receive(connection: socket.socket) -> dict[str, object]:
    (length,) = LENGTH.unpack(connection.recv(LENGTH.size, socket.MSG_WAITALL))
    return unpack(connection.recv(length, socket.MSG_WAITALL))


def ask(host: HostClient, **options: Any) -> Answer:
    [answer] = host.run(Task.TXT2IMG, [(PARAMS, None)], **options)
    assert isinstance(answer, Answer)
    return answer
