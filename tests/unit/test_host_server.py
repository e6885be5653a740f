"""What the model host replies to messages that nobody should send, and when it is at fault."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from crossmodal.kinds.task import Task
from tests.at_once import at_once
from tests.fakes.local_host import SIDE, FakeHost, serving
from tests.unit.test_batcher import Recorder, batcher_of
from tests.waiting import until
from worker.host.pipeline import HostRequest
from worker.host.protocol import LENGTH, HostInfo, pack, unpack
from worker.host.server import ModelHost
from worker.host.watch import no_step

REQUEST = {"params": {"prompt": "a circle", "count": 1, "seed": 1}, "image": None}
RUN = {"op": "run", "task": "txt2img", "requests": [REQUEST]}


class Unweighable(Recorder):
    def weight(self, request: HostRequest) -> int:
        raise TypeError("an internal error")


def reply(message: dict[str, Any], pipeline: Recorder) -> dict[str, Any]:
    info = HostInfo("model", "1", "cpu", 64, 0)
    host = ModelHost(info, batcher_of(pipeline, 4))
    return asyncio.run(host.answer(message, lambda _: None, no_step))


def test_a_message_is_answered() -> None:
    assert len(reply(RUN, Recorder())["ok"]["answers"]) == 1


@at_once(
    "message",
    [
        {},
        {"op": "run", "task": Task("txt2img")},
        RUN | {"task": "txt2song"},
        RUN | {"requests": 1},
        RUN | {"requests": [1]},
        RUN | {"requests": [REQUEST | {"params": None}]},
        RUN | {"requests": [REQUEST | {"image": "none"}]},
        RUN | {"requests": [REQUEST | {"image": {"shape": [1 << 40], "data": b""}}]},
    ],
)
def test_a_message_that_makes_no_sense_is_its_senders_fault(message: dict[str, Any]) -> None:
    assert reply(message, Recorder())["error"]["code"] in ("invalid_params", "unknown_task")


def test_an_error_of_the_host_is_told_as_such() -> None:
    error = reply(RUN, Unweighable())["error"]
    assert (error["code"], error["retryable"]) == ("model_host_error", True)


class Talk:
    """A client that sends whatever a test wants it to, and reads message by message."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def say(self, *messages: dict[str, Any]) -> None:
        self._writer.writelines(map(pack, messages))

    async def hear(self) -> dict[str, Any]:
        """The next message."""
        (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
        return unpack(await self._reader.readexactly(length))

    async def hear_end(self) -> None:
        """Return once the host has ended the connection."""
        with suppress(ConnectionError):
            await self._reader.read()

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


@asynccontextmanager
async def talking(tmp_path: Path) -> AsyncIterator[tuple[Talk, FakeHost, dict[str, Any]]]:
    """A client that is connected to a fake host, and what the host has said first."""
    path = tmp_path / "run" / "host.sock"
    with serving(path) as host:
        talk = Talk(*await asyncio.open_unix_connection(path))
        try:
            yield talk, host, await talk.hear()
        finally:
            await talk.close()


def test_the_host_says_first_who_it_is(tmp_path: Path) -> None:
    async def run() -> None:
        async with talking(tmp_path) as (_, _, hello):
            assert hello["hello"]["model"] == "fake"
            assert hello["hello"]["image_side"] == SIDE

    asyncio.run(run())


def test_a_request_is_noticed_on_the_device_and_answered_by_its_number(tmp_path: Path) -> None:
    async def run() -> None:
        async with talking(tmp_path) as (talk, _, _):
            talk.say(RUN | {"id": 7})
            assert await talk.hear() == {"id": 7, "on_device": 1}
            replied = await talk.hear()
            assert replied.keys() == {"id", "ok"}
            assert replied["id"] == 7

    asyncio.run(run())


def test_a_request_that_was_canceled_has_no_reply(tmp_path: Path) -> None:
    async def run() -> None:
        async with talking(tmp_path) as (talk, host, _):
            host.may_run.clear()
            talk.say(RUN | {"id": 1})
            assert await talk.hear() == {"id": 1, "on_device": 1}
            talk.say(RUN | {"id": 2}, {"id": 2, "op": "cancel"}, {"id": 1, "op": "cancel"})
            await asyncio.to_thread(until, lambda: host.in_hand == 0)
            host.may_run.set()
            talk.say(RUN | {"id": 3})
            assert [(await talk.hear())["id"] for _ in range(2)] == [3, 3]
            assert len(host.batches) == 2

    asyncio.run(run())


def test_a_cancel_that_crosses_its_reply_is_ignored(tmp_path: Path) -> None:
    async def run() -> None:
        async with talking(tmp_path) as (talk, _, _):
            talk.say({"id": 5, "op": "cancel"}, RUN | {"id": 6})
            assert (await talk.hear())["id"] == 6

    asyncio.run(run())


def test_a_client_that_goes_away_frees_its_places(tmp_path: Path) -> None:
    async def run() -> None:
        async with talking(tmp_path) as (talk, host, _):
            host.may_run.clear()
            talk.say(RUN | {"id": 1}, RUN | {"id": 2})
            await asyncio.to_thread(until, lambda: host.in_hand == 2)
            await talk.close()
            await asyncio.to_thread(until, lambda: not host.conversations)
            host.may_run.set()
            assert len(host.batches) <= 1

    asyncio.run(run())


@at_once(
    "messages",
    [[RUN], [RUN | {"id": "1"}], [RUN | {"id": True}], [RUN | {"id": 1}, RUN | {"id": 1}]],
)
def test_a_request_without_a_number_of_its_own_ends_the_connection(
    tmp_path: Path, messages: list[dict[str, Any]]
) -> None:
    async def run() -> None:
        async with talking(tmp_path) as (talk, host, _):
            host.may_run.clear()
            talk.say(*messages)
            await talk.hear_end()
            host.may_run.set()

    asyncio.run(run())


def test_what_is_too_large_to_be_sent_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with talking(tmp_path) as (talk, host, _):
            host.may_run.clear()
            talk.say(RUN | {"id": 1})
            await talk.hear()
            monkeypatch.setattr("worker.host.protocol.MAX_FRAME", 200)
            host.may_run.set()
            replied = await talk.hear()
            assert replied["id"] == 1
            assert "over the limit of 200" in replied["error"]["message"]

    asyncio.run(run())
