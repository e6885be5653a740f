"""Tests of the tools of a storm: connections, clocks, disks."""

import errno
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.chaos.clock import Clocks
from tests.chaos.disk import Disk
from tests.chaos.proxy import Proxy
from tests.conftest import need

WAIT_S = 20.0
TELL = """
import time, sys
for _ in sys.stdin:
    print(round(time.time()), flush=True)
"""


@contextmanager
def echo() -> Iterator[int]:
    """Yield the port of an echo server."""

    def serve(connection: socket.socket) -> None:
        with connection, suppress(ConnectionResetError):
            while data := connection.recv(100):
                connection.sendall(data)

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with echo() as port:
        proxy = Proxy(port)
        yield proxy
        proxy.close()


def connected(proxy: Proxy) -> socket.socket:
    """Return a connection that has been used."""
    client = socket.create_connection(("127.0.0.1", proxy.port), timeout=WAIT_S)
    client.sendall(b"hello")
    assert client.recv(100) == b"hello"
    return client


def test_a_forgotten_connection_is_open_and_says_nothing(proxy: Proxy) -> None:
    with connected(proxy) as forgotten:
        assert proxy.forget() == 1
        forgotten.sendall(b"is anybody there")
        forgotten.settimeout(0.5)
        with pytest.raises(TimeoutError):
            forgotten.recv(100)
        connected(proxy).close()  # a new one works


def test_connections_that_are_not_idle_are_left_alone(proxy: Proxy) -> None:
    with connected(proxy) as client:
        assert proxy.forget(WAIT_S) == proxy.reset(WAIT_S) == 0
        client.sendall(b"still")
        assert client.recv(100) == b"still"


def test_a_connection_is_reset(proxy: Proxy) -> None:
    with connected(proxy) as client:
        assert proxy.reset() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(100)


def test_a_clock_is_stepped_while_a_process_runs(tmp_path: Path) -> None:
    clocks = Clocks(tmp_path)
    need(clocks.may_step, "gcc")
    environment = clocks.environment("one")
    with subprocess.Popen(
        [sys.executable, "-c", TELL],
        env=environment,
        text=True,
        bufsize=1,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def told() -> int:
            process.stdin.write("\n")  # type: ignore[union-attr]
            return int(process.stdout.readline())  # type: ignore[union-attr]

        before = told()
        clocks.step(3_600)
        assert told() - before >= 3_600
        clocks.step(-7_200, "one")
        assert told() < before
        process.stdin.close()
        assert process.wait(WAIT_S) == 0


def test_a_file_is_touched_by_that_clock(tmp_path: Path) -> None:
    clocks = Clocks(tmp_path)
    need(clocks.may_step, "gcc")
    environment, file = clocks.environment("one"), tmp_path / "file"
    file.touch()
    before = file.stat().st_mtime
    clocks.step(3_600)
    program = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()"
    subprocess.run([sys.executable, "-c", program, str(file)], env=environment, check=True)
    assert file.stat().st_mtime - before >= 3_599


def test_a_disk_is_full_until_it_is_not(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk", 4)
    need(disk.may_fill, "root, to mount")
    try:
        disk.fill()
        with pytest.raises(OSError, match="No space") as caught:
            (disk.folder / "file").write_bytes(b"more")
        assert caught.value.errno == errno.ENOSPC
        disk.free()
        (disk.folder / "other").write_bytes(b"more")
    finally:
        disk.close()
