"""A Redis that refuses, or is none: every command reports it in one line, with the remedy."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from crossmodal.local.valkey import free_port, start_valkey, valkey_url
from crossmodal.processes import Child, python_module
from tests.commands import Done, run_command
from tests.servers import BINARY
from tests.waiting import until

COMMANDS = (
    ("up", "--no-flower", "--no-gateway"),
    ("worker", "--devices", "cpu"),
    ("gateway", "--port", "0"),
    ("background",),
    ("flower",),
    ("queue",),
    ("txt2img", "a red circle"),
)


@contextmanager
def answering(reply: bytes) -> Iterator[str]:
    """Yield a URL at which every request gets the same reply."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=_answer, args=(server, reply), daemon=True).start()
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        server.shutdown(socket.SHUT_RDWR)


def _answer(server: socket.socket, reply: bytes) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:  # the server is closed
            return
        Thread(target=_repeat, args=(connection, reply), daemon=True).start()


def _repeat(connection: socket.socket, reply: bytes) -> None:
    try:
        with connection:
            while connection.recv(65_536):
                connection.sendall(reply)
    except OSError:  # the client has left
        return


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Yield the port of a server that requires a password."""
    port = free_port()
    server = start_valkey(tmp_path_factory.mktemp("valkey"), port, "sesame", binary=BINARY)
    yield port
    server.stop(10)


def done(broker_url: str, folder: Path, *command: str) -> Done:
    """Run a command with this queue, and a data folder of its own."""
    env = {
        "CELERY_BROKER_URL": broker_url,
        "CROSSMODAL_STORAGE_URL": (folder / "storage").as_uri(),
        "CROSSMODAL_RUN_DIR": str(folder / "run"),
        "CROSSMODAL_CONNECT_TIMEOUT_S": "1",
        "XDG_DATA_HOME": str(folder),
    }
    return run_command(env, *command)


def check_told(ended: Done, *words: str) -> None:
    """Check that it has ended as for a wrong setting, and wrote one line with these words."""
    line = ended.stderr.removesuffix("\n")
    assert (ended.returncode, line.count("\n")) == (2, 0), ended.stderr
    assert all(word in line for word in words), line


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_password_that_is_needed_or_wrong(
    locked: int, short_path: Path, command: tuple[str, ...]
) -> None:
    remedy = "Correct the user and password in CELERY_BROKER_URL"
    check_told(done(valkey_url(locked), short_path, *command), "Authentication required", remedy)
    wrong = valkey_url(locked, "wrong")
    check_told(done(wrong, short_path, *command), "invalid username-password pair", remedy)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_database_that_is_out_of_range(
    locked: int, short_path: Path, command: tuple[str, ...]
) -> None:
    url = valkey_url(locked, "sesame").replace("/0", "/99")
    check_told(done(url, short_path, *command), "/99 has no such database: use a lower number")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_another_service_at_the_port(short_path: Path, command: tuple[str, ...]) -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
        check_told(done(url, short_path, *command), "is not Redis", "correct the host and port")


def test_up_says_that_what_listens_never_answers(short_path: Path) -> None:
    with answering(b"") as url:
        ended = done(url, short_path, *COMMANDS[0])
    check_told(ended, "is not Redis: set CELERY_BROKER_URL to another port")


def test_who_asks_a_server_that_loads_its_data_is_told_to_try_again(short_path: Path) -> None:
    with answering(b"-LOADING Redis is loading the dataset in memory\r\n") as url:
        ended = done(url, short_path, "queue")
    assert ended.returncode == 1  # it is temporary
    assert "is loading its data: try again later\n" in ended.stderr


def test_up_waits_for_a_server_that_loads_its_data(short_path: Path) -> None:
    with answering(b"-LOADING Redis is loading the dataset in memory\r\n") as url:
        log = short_path / "log"
        env = {
            "CELERY_BROKER_URL": url,
            "CROSSMODAL_STORAGE_URL": (short_path / "storage").as_uri(),
            "XDG_DATA_HOME": str(short_path),
        }
        argv = [sys.executable, *python_module("crossmodal.cli", *COMMANDS[0])[1:]]
        with log.open("wb") as output:
            up = Child("up", argv, env, output=output)
            up.start()
        until(lambda: "which is loading its data" in log.read_text(), 60)
        assert up.is_alive
        up.stop(60)
    assert log.read_text().count("which is loading its data") == 1
