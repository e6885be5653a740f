"""The worker's end of the socket, against a host that misbehaves on purpose."""

import asyncio
import fcntl
import socket
import termios
import threading
from array import array
from pathlib import Path
from typing import Any

import pytest

from crossmodal.errors import ModelHostCrashed, ModelHostError, ModelHostUnavailable, TimedOut
from tests.at_once import at_once
from tests.unit.bad_host import (
    HELLO,
    Serve,
    answer_each,
    ask,
    ask_once,
    joined,
    notice,
    receive,
    reply,
)
from tests.waiting import until
from worker.host.client import answers_of
from worker.host.protocol import pack

# Whether there is a host


def test_no_host_is_unavailable_and_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(ModelHostUnavailable, match=r"No such file.*crossmodal worker"):
        ask_once(tmp_path / "none.sock", wait_s=0.1)


@pytest.mark.parametrize("hello", [b"", pack({"hello": 1}), reply(1), b"\0\0\0\1\xc3"])
def test_a_host_that_does_not_say_who_it_is_is_unavailable(serve: Serve, hello: bytes) -> None:
    def wait(connection: socket.socket, number: int) -> None:
        connection.recv(1)

    with pytest.raises(ModelHostUnavailable):
        ask_once(serve(wait, hello), wait_s=0.5)


def test_the_host_says_once_who_it_is(serve: Serve) -> None:
    async def run(path: Path) -> None:
        async with joined(path) as host:
            first, second = await host.info(), await host.info()
            assert first is second
            assert first.image_side == 8

    asyncio.run(run(serve(lambda connection, number: None)))


def test_who_waits_for_a_host_is_served_once_it_is_there(serve: Serve, tmp_path: Path) -> None:
    """Also when the one who came first, and tried to connect for all, has gone."""

    async def run() -> None:
        async with joined(tmp_path / "host.sock") as host:
            first, second = (asyncio.create_task(ask(host)) for _ in range(2))
            await asyncio.sleep(0)
            first.cancel()
            serve(answer_each)
            assert (await second).model == "host 0"

    asyncio.run(run())


def test_a_host_that_was_restarted_is_connected_to_again(
    serve: Serve, hung_up: threading.Semaphore
) -> None:
    async def run(path: Path) -> None:
        async with joined(path) as host:
            assert (await ask(host)).model == "host 0"
            assert await asyncio.to_thread(hung_up.acquire, timeout=60)
            try:
                found = await ask(host)
            except ModelHostCrashed:  # that it has hung up is heard only now
                found = await ask(host)
            assert found.model == "host 1"

    asyncio.run(run(serve(answer_each)))


# A host that dies


@pytest.mark.parametrize("size", [1, 7])
def test_a_host_that_hangs_up_on_a_running_batch_has_crashed(serve: Serve, size: int) -> None:
    told: list[int] = []

    def hang_up(connection: socket.socket, number: int) -> None:
        connection.sendall(notice(receive(connection)["id"], size))

    async def run(path: Path) -> None:
        async with joined(path) as host:
            with pytest.raises(ModelHostCrashed) as caught:
                await ask(host, on_device=told.append)
        assert caught.value.batch_size == size

    asyncio.run(run(serve(hang_up)))
    assert told == [size]


def test_a_host_that_dies_is_held_against_those_on_the_device_only(serve: Serve) -> None:
    def hang_up(connection: socket.socket, number: int) -> None:
        ids = [receive(connection)["id"] for _ in range(3)]
        connection.sendall(notice(ids[1], 2) + notice(ids[2], 2))

    async def run(path: Path) -> None:
        async with joined(path) as host:
            crashes = await asyncio.gather(*(ask(host) for _ in range(3)), return_exceptions=True)
        assert [getattr(crash, "batch_size", None) for crash in crashes] == [0, 2, 2]

    asyncio.run(run(serve(hang_up)))


GARBAGE = {
    "not a map": b"\0\0\0\1\xc3",
    "no msgpack": b"\0\0\0\2\x81\xa1",
    "too large": b"\xff\xff\xff\xff",
    "no id": pack({"ok": {}}),
    "an id never given": reply(99),
    "an id of another kind": reply("1"),
    "neither notice nor reply": pack({"id": 1, "on_device": "yes"}),
    "hello again": HELLO,
}


def test_garbage_ends_the_connection_and_not_the_worker(serve: Serve) -> None:
    garbage = list(GARBAGE.values())

    def behave(connection: socket.socket, number: int) -> None:
        asked = receive(connection)["id"]
        if number < len(garbage):
            connection.sendall(notice(asked) + garbage[number])
            connection.recv(1)
        else:
            connection.sendall(reply(asked, "good"))

    async def run(path: Path) -> None:
        async with joined(path) as host:
            for name in GARBAGE:
                with pytest.raises(ModelHostCrashed) as caught:
                    pytest.fail(f"{name}: {await ask(host)}")
                assert caught.value.batch_size == 1, name
            assert (await ask(host)).model == "good"

    asyncio.run(run(serve(behave)))


@at_once("ok", [None, {}, {"model": "m", "bundle_version": "v", "answers": []}])
def test_a_reply_that_makes_no_sense_fails_its_request(ok: object) -> None:
    with pytest.raises(ModelHostError, match="cannot be understood"):
        answers_of({"id": 1, "ok": ok}, 1)


# A host that is slow


class Clock:
    """The time of a loop, which a test moves on."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._ahead, self._real = 0.0, loop.time
        loop.time = lambda: self._real() + self._ahead  # type: ignore[method-assign]

    async def advance(self, seconds: float) -> None:
        self._ahead += seconds
        for _ in range(3):  # turns, for what is due to happen
            await asyncio.sleep(0)


def on_demand(said: "list[threading.Event]") -> Any:
    """Send two notices and the reply, each when it is its turn."""

    def behave(connection: socket.socket, number: int) -> None:
        asked = receive(connection)["id"]
        for event, message in zip(said, (notice(asked), notice(asked), reply(asked)), strict=True):
            assert event.wait(60)
            connection.sendall(message)
        connection.recv(1)

    return behave


def test_only_silence_on_the_device_has_a_limit(serve: Serve) -> None:
    events = [threading.Event() for _ in range(3)]

    async def run(path: Path) -> None:
        async with joined(path, timeout_s=100) as host:
            await host.info()
            clock, told = Clock(), asyncio.Semaphore(0)
            asked = asyncio.create_task(ask(host, on_device=lambda size: told.release()))
            await clock.advance(100_000)  # before others, which have limits of their own
            for event in events[:2]:
                event.set()
                await told.acquire()
                await clock.advance(80)
            events[2].set()
            assert (await asked).model == "m"

    asyncio.run(run(serve(on_demand(events))))


def test_a_request_that_is_silent_on_the_device_has_timed_out(serve: Serve) -> None:
    heard: list[dict[str, object]] = []

    def behave(connection: socket.socket, number: int) -> None:
        first = receive(connection)
        connection.sendall(notice(first["id"]))
        heard.append(receive(connection))
        second = receive(connection)
        connection.sendall(reply(first["id"], "late") + reply(second["id"], "second"))
        connection.recv(1)

    async def run(path: Path) -> None:
        async with joined(path) as host:
            await host.info()
            clock, told = Clock(), asyncio.Event()
            asked = asyncio.create_task(ask(host, on_device=lambda size: told.set()))
            await told.wait()
            await clock.advance(100)
            with pytest.raises(TimedOut):
                await asked
            assert (await ask(host)).model == "second"  # and no late reply, on one connection

    asyncio.run(run(serve(behave)))
    assert heard == [{"id": 1, "op": "cancel"}]


def unread(connection: socket.socket) -> int:
    """Bytes that were sent and wait for the other side to read them; unix(7), SIOCOUTQ."""
    count = array("i", [0])
    fcntl.ioctl(connection, termios.TIOCOUTQ, count)
    return count[0]


def test_a_reply_that_comes_in_pieces_is_put_together(serve: Serve) -> None:
    def in_pieces(connection: socket.socket, number: int) -> None:
        whole = reply(receive(connection)["id"], "long " * 100_000)
        for piece in (whole[:2], whole[2:50], whole[50:-3], whole[-3:-1], whole[-1:]):
            connection.sendall(piece)
            until(lambda: not unread(connection))

    assert ask_once(serve(in_pieces)).model == "long " * 100_000
