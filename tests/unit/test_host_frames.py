"""Frames that come in pieces of any size, and what waits while nobody reads."""

import asyncio
import random

import pytest

from tests.at_once import at_once
from worker.host.frames import PIECE, Frames
from worker.host.protocol import Message, pack

SIZES = (0, 1, 50, 3_000, PIECE - 40, PIECE, PIECE + 1, 3 * PIECE)


class Kept(Frames):
    """Keeps what it receives."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Message] = []

    def received(self, message: Message) -> None:
        self.kept.append(message)


class Transport(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_aborted = False

    def write(self, data: object) -> None:
        self.written.append(bytes(data))  # type: ignore[call-overload]  # it is a buffer

    def abort(self) -> None:
        self.is_aborted = True


def feed(frames: Frames, data: bytes, most: int) -> None:
    """Give it the data in pieces, as an event loop does."""
    while data:
        buffer = frames.get_buffer(-1)
        assert len(buffer)
        size = min(len(buffer), most, len(data))
        buffer[:size] = data[:size]
        frames.buffer_updated(size)
        data = data[size:]


@at_once("most", [1_000, 4_096, 70_001, 1 << 30])
def test_frames_are_put_together_however_they_come(most: int) -> None:
    chance = random.Random(most)
    messages = [{"id": n, "data": b"x" * chance.choice(SIZES)} for n in range(60)]
    frames = Kept()
    feed(frames, b"".join(map(pack, messages)), most)
    assert frames.kept == messages


def test_a_large_frame_has_its_memory_only_for_as_long_as_it_is_read() -> None:
    frames = Kept()
    large = pack({"data": b"x" * (20 * PIECE)})
    feed(frames, large[:-1], 1 << 30)
    assert len(frames.get_buffer(-1)) == 1
    feed(frames, large[-1:], 1)
    assert len(frames.get_buffer(-1)) == PIECE


def test_one_byte_after_the_other_makes_a_message() -> None:
    frames = Kept()
    feed(frames, pack({"a": 1}) + pack({"b": 2}), 1)
    assert frames.kept == [{"a": 1}, {"b": 2}]


@pytest.fixture
def transport() -> Transport:
    return Transport()


def test_what_is_sent_in_a_turn_is_written_at_once(transport: Transport) -> None:
    async def run() -> None:
        frames = Kept()
        frames.connection_made(transport)
        for n in range(3):
            frames.send({"n": n})
        await asyncio.sleep(0)

    asyncio.run(run())
    assert transport.written == [b"".join(pack({"n": n}) for n in range(3))]


def test_what_cannot_be_written_waits_in_the_order_of_its_rank(transport: Transport) -> None:
    async def run() -> None:
        frames = Kept()
        frames.connection_made(transport)
        frames.pause_writing()
        for rank, name in ((1, "bulk"), (1, "more"), (0, "first"), (0, "second")):
            frames.send({"name": name}, rank)
        await asyncio.sleep(0)
        assert not transport.written
        frames.resume_writing()

    asyncio.run(run())
    names = ("first", "second", "bulk", "more")
    assert transport.written == [b"".join(pack({"name": name}) for name in names)]


def test_a_large_frame_is_written_in_pieces_for_as_long_as_they_are_taken(
    transport: Transport,
) -> None:
    large, small = {"data": b"x" * (3 * PIECE)}, {"data": b""}

    async def run() -> None:
        frames = Kept()
        frames.connection_made(transport)
        frames.send(large)
        frames.send(small)
        await asyncio.sleep(0)

    asyncio.run(run())
    assert max(map(len, transport.written)) == PIECE
    assert b"".join(transport.written) == pack(large) + pack(small)


@at_once("data", [b"\0\0\0\1\xc3", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\2\x81\xa1"])
def test_what_is_no_message_ends_the_connection(data: bytes) -> None:
    frames, transport = Kept(), Transport()
    frames.connection_made(transport)
    feed(frames, data, 1 << 30)
    assert transport.is_aborted
    assert isinstance(frames.fault, ValueError)
