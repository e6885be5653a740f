"""A model host that does at the other end of the socket whatever a test wants it to."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import pytest

from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import Txt2ImgParams
from worker.host.client import HostClient
from worker.host.pipeline import HostRequest
from worker.host.protocol import LENGTH, Answer, pack, unpack

Behaviour = Callable[[socket.socket, int], None]
PARAMS = Txt2ImgParams(prompt="a circle", seed=1)
INFO = {
    "model": "m",
    "bundle_version": "v",
    "device": "cpu",
    "image_side": 8,
    "image_is_square": True,
    "pid": 1,
}
HELLO = pack({"hello": INFO})


def reply(number: object, name: str = "m") -> bytes:
    answers = [{"batch": [1, 0.0, 0.0]}]
    ok = {"model": name, "bundle_version": "v", "answers": answers}
    return pack({"id": number, "ok": ok})


def notice(number: object, size: int = 1) -> bytes:
    return pack({"id": number, "on_device": size})


class Serve(Protocol):
    """Start the host, and say where."""

    def __call__(self, behave: Behaviour, hello: bytes = HELLO) -> Path: ...


@pytest.fixture
def hung_up() -> threading.Semaphore:
    """Released each time that the host has closed a connection."""
    return threading.Semaphore(0)


@pytest.fixture
def serve(tmp_path: Path, hung_up: threading.Semaphore) -> Iterator[Serve]:
    """Say hello on one connection after the other, and then behave in a given way."""
    path = tmp_path / "host.sock"
    listener = socket.socket(socket.AF_UNIX)

    def start(behave: Behaviour, hello: bytes = HELLO) -> Path:
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
                    connection.sendall(hello)
                    behave(connection, number)
                hung_up.release()
                number += 1

        threading.Thread(target=run, daemon=True).start()
        return path

    yield start
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def receive(connection: socket.socket) -> dict[str, Any]:
    (length,) = LENGTH.unpack(connection.recv(LENGTH.size, socket.MSG_WAITALL))
    return unpack(connection.recv(length, socket.MSG_WAITALL))


def answer_each(connection: socket.socket, number: int) -> None:
    """Answer one request a connection."""
    connection.sendall(reply(receive(connection)["id"], f"host {number}"))


@asynccontextmanager
async def joined(
    path: Path, wait_s: float = 60, timeout_s: float = 60
) -> AsyncIterator[HostClient]:
    """A client of the host at `path`."""
    host = HostClient(path, wait_s, timeout_s)
    try:
        yield host
    finally:
        await host.close()


async def ask(host: HostClient, **options: Any) -> Answer:
    [answer] = await host.run(Task("txt2img"), [HostRequest(PARAMS)], **options)
    assert isinstance(answer, Answer)
    return answer


def ask_once(path: Path, **waits: float) -> Answer:
    """What the host at `path` answers a client that asks it once."""

    async def run() -> Answer:
        async with joined(path, **waits) as host:
            return await ask(host)

    return asyncio.run(run())
