"""The task's end of the socket, against a host that misbehaves on purpose."""

import fcntl
import signal
import socket
import termios
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from crossmodal.errors import ModelHostCrashed, ModelHostUnavailable, TimedOut
from tests.unit.bad_host import Behaviour, ask, receive, reply
from tests.waiting import until
from worker.host.client import HostClient, NoLongerWanted
from worker.host.protocol import pack


def test_no_host_is_unavailable_and_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(ModelHostUnavailable, match="crossmodal worker"):
        ask(HostClient(tmp_path / "none.sock", wait_s=0.1, timeout_s=1))


@pytest.mark.parametrize("size", [1, 7])
def test_a_host_that_hangs_up_on_a_running_batch_has_crashed(
    serve: Callable[[Behaviour], Path], size: int
) -> None:
    def hang_up(connection: socket.socket, number: int) -> None:
        receive(connection)
        connection.sendall(pack({"running": size}))

    host = HostClient(serve(hang_up), wait_s=60, timeout_s=60)
    with pytest.raises(ModelHostCrashed) as caught:
        ask(host)
    assert caught.value.batch_size == size


def test_a_host_that_hangs_up_before_it_began_is_not_held_against_the_job(
    serve: Callable[[Behaviour], Path],
) -> None:
    def hang_up(connection: socket.socket, number: int) -> None:
        receive(connection)

    host = HostClient(serve(hang_up), wait_s=60, timeout_s=60)
    with pytest.raises(ModelHostCrashed) as caught:
        ask(host)
    assert caught.value.batch_size == 0


def test_a_request_that_is_not_wanted_any_more_is_given_up_soon(
    serve: Callable[[Behaviour], Path],
) -> None:
    host = HostClient(serve(late), wait_s=60, timeout_s=60)
    begun = time.monotonic()
    with pytest.raises(NoLongerWanted):
        ask(host, is_wanted=lambda: False)
    assert time.monotonic() - begun < 10  # and not a minute
    assert ask(host).model == "answer 1"
    host.close()


def test_who_waits_for_a_host_in_vain_can_be_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: float) -> None:
        raise InterruptedError

    monkeypatch.setattr("worker.host.client.time.sleep", interrupted)
    host = HostClient(tmp_path / "none.sock", wait_s=60, timeout_s=60)
    with pytest.raises(InterruptedError):
        ask(host)
    assert host.is_awaited


def test_a_host_that_was_restarted_is_connected_to_again(
    serve: Callable[[Behaviour], Path], hung_up: threading.Semaphore
) -> None:
    def one_answer_each(connection: socket.socket, number: int) -> None:
        receive(connection)
        connection.sendall(reply(f"host {number}"))

    host = HostClient(serve(one_answer_each), wait_s=60, timeout_s=60)
    assert ask(host).model == "host 0"
    assert hung_up.acquire(timeout=60)
    assert ask(host).model == "host 1"
    host.close()


def late(connection: socket.socket, number: int) -> None:
    """Answer the first connection only when more is asked on it, or when it is closed."""
    receive(connection)
    connection.sendall(pack({"running": 1}))
    if number == 0:
        connection.recv(1)
    connection.sendall(reply(f"answer {number}"))


def test_a_late_reply_never_answers_the_next_request(
    serve: Callable[[Behaviour], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.host.client.MARGIN_S", 0.0)
    host = HostClient(serve(late), wait_s=60, timeout_s=0.3)
    with pytest.raises(TimedOut):
        ask(host)
    monkeypatch.setattr("worker.host.client.MARGIN_S", 60.0)
    assert ask(host).model == "answer 1"
    host.close()


def test_a_wait_that_was_interrupted_leaves_no_connection_behind(
    serve: Callable[[Behaviour], Path],
) -> None:
    class Interrupted(Exception):
        """Raised in the middle of a wait, as the pool's time limit is, by a signal."""

    def interrupted(*_: object) -> None:
        raise Interrupted

    def interrupting(connection: socket.socket, number: int) -> None:
        if number == 0:
            receive(connection)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            connection.recv(1)  # until the other side has closed it
        else:
            late(connection, number)

    before = signal.signal(signal.SIGUSR1, interrupted)
    host = HostClient(serve(interrupting), wait_s=60, timeout_s=60)
    try:
        with pytest.raises(Interrupted):
            ask(host)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not host.is_awaited  # there was one: the time went into the job
    assert ask(host).model == "answer 1"
    host.close()


def unread(connection: socket.socket) -> int:
    """Bytes that were sent and wait for the other side to read them; unix(7), SIOCOUTQ."""
    count = array("i", [0])
    fcntl.ioctl(connection, termios.TIOCOUTQ, count)
    return count[0]


def test_a_reply_that_comes_in_pieces_is_put_together(serve: Callable[[Behaviour], Path]) -> None:
    def in_pieces(connection: socket.socket, number: int) -> None:
        receive(connection)
        whole = reply("long " * 100_000)
        for piece in (whole[:2], whole[2:50], whole[50:-3], whole[-3:-1], whole[-1:]):
            connection.sendall(piece)
            until(lambda: not unread(connection))

    host = HostClient(serve(in_pieces), wait_s=60, timeout_s=60)
    assert ask(host).model == "long " * 100_000
    host.close()


def test_a_reply_that_nobody_waits_for_ends_its_connection(
    serve: Callable[[Behaviour], Path],
) -> None:
    def twice(connection: socket.socket, number: int) -> None:
        receive(connection)
        connection.sendall(reply(f"answer {number}") + reply("too much"))
        connection.recv(1)

    host = HostClient(serve(twice), wait_s=60, timeout_s=60)
    assert [ask(host).model, ask(host).model] == ["answer 0", "answer 1"]
    host.close()
