"""The worker's end of the socket, against a host that misbehaves on purpose, and a good one."""

import asyncio
import fcntl
import socket
import termios
import threading
from array import array
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossmodal.errors import (
    InvalidParams,
    JobFailed,
    ModelHostCrashed,
    ModelHostError,
    ModelHostUnavailable,
    TimedOut,
)
from crossmodal.jobs.names import Task
from crossmodal.jobs.params import BlobRef, Img2TxtParams, Txt2ImgParams
from tests.at_once import at_once
from tests.fakes.local_host import SIDE, FakeHost, serving
from tests.unit.bad_host import HELLO, Serve, ask, ask_once, joined, notice, receive, reply
from tests.waiting import until
from worker.host.client import HostClient, HostRequest, _answers
from worker.host.protocol import Answer, pack

PICTURE = Img2TxtParams(image=BlobRef(key="k", sha256="0" * 64, size=1))


def crash_of(run: Coroutine[Any, Any, object]) -> ModelHostCrashed:
    with pytest.raises(ModelHostCrashed) as caught:
        asyncio.run(run)
    return caught.value


async def soon(event: threading.Event) -> None:
    """Wait for what a thread sets, without holding the loop up."""
    assert await asyncio.to_thread(event.wait, 60)


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


def answer_each(connection: socket.socket, number: int) -> None:
    """Answer one request a connection."""
    connection.sendall(reply(receive(connection)["id"], f"host {number}"))


def test_a_host_that_was_restarted_is_connected_to_again(
    serve: Serve, hung_up: threading.Semaphore
) -> None:
    async def run(path: Path) -> None:
        async with joined(path) as host:
            assert (await ask(host)).model == "host 0"
            assert await asyncio.to_thread(hung_up.acquire, timeout=60)
            assert (await ask(host)).model == "host 1"

    asyncio.run(run(serve(answer_each)))


# A host that dies


@pytest.mark.parametrize("size", [1, 7])
def test_a_host_that_hangs_up_on_a_running_batch_has_crashed(serve: Serve, size: int) -> None:
    told: list[int] = []

    def hang_up(connection: socket.socket, number: int) -> None:
        connection.sendall(notice(receive(connection)["id"], size))

    async def run(path: Path) -> None:
        async with joined(path) as host:
            await ask(host, on_device=told.append)

    assert crash_of(run(serve(hang_up))).batch_size == size
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
        _answers({"id": 1, "ok": ok}, 1)


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


# Many at once


def test_many_share_one_connection_and_each_gets_its_own_answer(serve: Serve) -> None:
    many = 200

    def backwards(connection: socket.socket, number: int) -> None:
        asked = [receive(connection) for _ in range(many)]
        for one in reversed(asked):
            [request] = one["requests"]
            connection.sendall(reply(one["id"], request["params"]["prompt"]))
        connection.recv(1)

    async def run(path: Path) -> None:
        async with joined(path) as host:
            prompts = [f"prompt {n}" for n in range(many)]
            answers = await asyncio.gather(*(draw(host, prompt) for prompt in prompts))
        assert [answer.model for answer in answers] == prompts

    asyncio.run(run(serve(backwards)))


async def draw(host: HostClient, prompt: str, **options: Any) -> Answer:
    [answer] = await host.run(
        Task.TXT2IMG, [(Txt2ImgParams(prompt=prompt, seed=1), None)], **options
    )
    assert isinstance(answer, Answer)
    return answer


def picture(size: int) -> HostRequest:
    return PICTURE, np.zeros((size, 1_000, 3), np.uint8)


def test_small_requests_pass_large_ones_that_wait(serve: Serve) -> None:
    begun, go_on = threading.Event(), threading.Event()
    sizes: list[int] = []

    def slow(connection: socket.socket, number: int) -> None:
        connection.recv(1, socket.MSG_PEEK)
        begun.set()
        assert go_on.wait(60)
        for _ in range(3):
            asked = receive(connection)
            [request] = asked["requests"]
            sizes.append(len(request["image"]["data"]) if request["image"] else 0)
            connection.sendall(reply(asked["id"]))
        connection.recv(1)

    async def run(path: Path) -> None:
        async with joined(path) as host:
            first = asyncio.create_task(host.run(Task.IMG2TXT, [picture(3_000)], bulk=True))
            await soon(begun)
            second = asyncio.create_task(host.run(Task.IMG2TXT, [picture(2_000)], bulk=True))
            small = asyncio.create_task(ask(host))
            await asyncio.sleep(0)
            go_on.set()
            await asyncio.gather(first, second, small)

    asyncio.run(run(serve(slow)))
    assert sizes == [9_000_000, 0, 6_000_000]


def test_a_request_over_the_limit_harms_no_other(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.host.protocol.MAX_FRAME", 1_000_000)

    async def run(path: Path) -> None:
        async with joined(path) as host:
            other = asyncio.create_task(ask(host))
            with pytest.raises(InvalidParams, match="over the limit of 1000000"):
                await host.run(Task.IMG2TXT, [picture(1_000)])
            assert (await other).model == "host 0"

    asyncio.run(run(serve(answer_each)))


def test_a_callback_that_fails_harms_no_other(serve: Serve) -> None:
    def behave(connection: socket.socket, number: int) -> None:
        first, second = receive(connection), receive(connection)
        connection.sendall(notice(first["id"]) + reply(second["id"]))
        connection.recv(1)

    def fail(size: int) -> None:
        raise ZeroDivisionError

    async def run(path: Path) -> None:
        async with joined(path) as host:
            first, second = asyncio.create_task(ask(host, on_device=fail)), ask(host)
            await asyncio.sleep(0)
            assert (await second).model == "m"
            with pytest.raises(ZeroDivisionError):
                await first

    asyncio.run(run(serve(behave)))


# A host as it should be


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[tuple[FakeHost, Path]]:
    path = tmp_path / "run" / "host.sock"
    with serving(path) as host:
        yield host, path


def test_all_that_begin_at_once_open_one_connection(fake: tuple[FakeHost, Path]) -> None:
    host, path = fake

    async def run() -> None:
        async with joined(path) as client:
            await asyncio.gather(*(ask(client) for _ in range(50)))
            assert len(host.conversations) == 1

    asyncio.run(run())
    until(lambda: not host.conversations)


def test_a_canceled_request_frees_its_place(fake: tuple[FakeHost, Path]) -> None:
    host, path = fake

    async def run() -> None:
        async with joined(path) as client:
            first = await on_device(client, host)
            second = asyncio.create_task(draw(client, "canceled"))
            await in_hand(host, 2)
            second.cancel()
            await in_hand(host, 1)
            host.may_run.set()
            await asyncio.gather(first, draw(client, "last"))

    asyncio.run(run())
    assert host.batches == [["first"], ["last"]]


def test_a_request_that_is_canceled_on_the_device_is_forgotten(
    fake: tuple[FakeHost, Path],
) -> None:
    host, path = fake

    async def run() -> None:
        async with joined(path) as client:
            first = await on_device(client, host)
            first.cancel()
            await in_hand(host, 0)
            host.may_run.set()
            await draw(client, "second")
            assert len(host.conversations) == 1

    asyncio.run(run())
    assert host.batches == [["first"], ["second"]]


async def on_device(client: HostClient, host: FakeHost) -> "asyncio.Task[Answer]":
    """A request that stays on the device for as long as the host may not run."""
    told = asyncio.Event()
    host.may_run.clear()
    task = asyncio.create_task(draw(client, "first", on_device=lambda _: told.set()))
    await told.wait()
    await asyncio.to_thread(until, lambda: bool(host.batches))
    return task


async def in_hand(host: FakeHost, count: int) -> None:
    await asyncio.to_thread(until, lambda: host.in_hand == count)


def test_a_host_that_dies_with_a_batch_crashes_those_in_it(fake: tuple[FakeHost, Path]) -> None:
    _, path = fake

    async def run() -> None:
        async with joined(path) as client:
            crash = await asyncio.gather(draw(client, "fatal"), return_exceptions=True)
            assert getattr(crash[0], "batch_size", None) == 1
            assert (await draw(client, "fine")).images is not None

    asyncio.run(run())


def test_a_large_picture_and_small_requests_are_all_answered(fake: tuple[FakeHost, Path]) -> None:
    host, path = fake

    async def run() -> None:
        async with joined(path) as client:
            large = asyncio.create_task(client.run(Task.IMG2TXT, [picture(16_000)], bulk=True))
            small = [asyncio.create_task(ask(client)) for _ in range(20)]
            for answer in await asyncio.gather(*small):
                assert answer.images is not None
                assert answer.images.shape == (1, SIDE, SIDE, 3)
            [described] = await large
            assert isinstance(described, Answer)
            assert described.captions

    asyncio.run(run())
    assert ["(16000, 1000, 3)"] in host.batches


def test_an_error_of_the_host_is_raised(fake: tuple[FakeHost, Path]) -> None:
    _, path = fake

    async def run() -> None:
        async with joined(path) as client:
            with pytest.raises(JobFailed) as caught:
                await client.run(Task.TXT2IMG, [(PICTURE, None)])
            assert caught.value.code == "invalid_params"

    asyncio.run(run())
