"""Many requests at once over the worker's one connection to its model host."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossmodal.errors import InvalidParams, JobFailed, ModelHostCrashed
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.img2txt import Img2TxtParams
from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import Txt2ImgParams
from tests.fakes.local_host import SIDE, FakeHost, serving
from tests.unit.bad_host import Serve, answer_each, ask, joined, notice, receive, reply
from tests.waiting import until
from worker.host.client import HostClient
from worker.host.pipeline import HostRequest
from worker.host.protocol import Answer

PICTURE = Img2TxtParams(image=BlobRef(key="k", sha256="0" * 64, size=1))


async def soon(event: threading.Event) -> None:
    """Wait for what a thread sets, without holding the loop up."""
    assert await asyncio.to_thread(event.wait, 60)


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
        Task("txt2img"), [HostRequest(Txt2ImgParams(prompt=prompt, seed=1))], **options
    )
    assert isinstance(answer, Answer)
    return answer


def picture(size: int) -> HostRequest:
    return HostRequest(PICTURE, np.zeros((size, 1_000, 3), np.uint8))


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
            first = asyncio.create_task(host.run(Task("img2txt"), [picture(3_000)], bulk=True))
            await soon(begun)
            second = asyncio.create_task(host.run(Task("img2txt"), [picture(2_000)], bulk=True))
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
                await host.run(Task("img2txt"), [picture(1_000)])
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


def test_a_request_that_is_canceled_on_the_device_is_forgotten(fake: tuple[FakeHost, Path]) -> None:
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


def test_what_runs_when_the_connection_is_closed_is_told_so(fake: tuple[FakeHost, Path]) -> None:
    host, path = fake

    async def run() -> None:
        async with joined(path) as client:
            first = await on_device(client, host)
            await client.close()
            host.may_run.set()
            with pytest.raises(ModelHostCrashed, match="the worker closed the connection"):
                await first

    asyncio.run(run())


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
            large = asyncio.create_task(client.run(Task("img2txt"), [picture(16_000)], bulk=True))
            small = [asyncio.create_task(ask(client)) for _ in range(20)]
            for answer in await asyncio.gather(*small):
                assert answer.images is not None
                assert answer.images.shape == (1, SIDE, SIDE, 3)
            [described] = await large
            assert isinstance(described, Answer)
            assert described.captions

    asyncio.run(run())
    assert ["(16000, 1000, 3)"] in host.batches


def test_what_is_wrong_with_a_request_is_its_answer(fake: tuple[FakeHost, Path]) -> None:
    _, path = fake

    async def run() -> None:
        async with joined(path) as client:
            [answer] = await client.run(Task("txt2img"), [HostRequest(PICTURE)])
            assert isinstance(answer, JobFailed)
            assert answer.code == "invalid_params"

    asyncio.run(run())
