"""Framed messages over a connection of an event loop, with few copies.

What is sent within a turn of the loop is written at once. While the peer does not read, frames wait
here and not in the transport, so that an urgent one passes large ones. No more frames wait than
there are open requests: a sender waits for its reply.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count
from typing import cast

import numpy as np

from worker.host.protocol import LENGTH, MAX_FRAME, Message, pack, unpack

log = logging.getLogger(__name__)

PIECE = 1 << 18  # bytes read or written at once; the kernel takes few more


class Frames(asyncio.BufferedProtocol, ABC):
    """One connection. Subclasses handle its messages in `received`."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        """The reason for the end of the connection, if this side or an error ended it."""
        self.is_lost = False
        self._small = self._buffer = memoryview(bytearray(PIECE))
        self._filled = 0
        self._outbox: list[tuple[int, int, bytes]] = []  # a heap by rank, then by number
        self._numbers = count()
        self._rest = memoryview(b"")  # the rest of what is being written
        self._is_flushing = False
        self._is_writable = True

    @abstractmethod
    def received(self, message: Message) -> None:
        """Handle a message. Raises `ValueError` on one that ends the connection."""

    def send(self, message: Message, rank: int = 0) -> None:
        """Send a message after all of its own and lower ranks. Raises `ValueError` if too large."""
        heappush(self._outbox, (rank, next(self._numbers), pack(message)))
        if not self._is_flushing:
            self._is_flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def abort(self, fault: Exception | None = None) -> None:
        """End the connection at once; messages that wait to be sent are lost."""
        self.fault = fault
        self._transport.abort()

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has its own class

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost, self._is_writable = True, False
        self.fault = self.fault or exc
        self._outbox.clear()
        self._rest = memoryview(b"")

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        try:
            self._keep(self._take_frames())
        except ValueError as e:
            log.error("closing the connection: %s", e)
            self.abort(e)

    def pause_writing(self) -> None:
        self._is_writable = False

    def resume_writing(self) -> None:
        self._is_writable = True
        self._flush()

    def _take_frames(self) -> int:
        """Handle the messages that are complete; return where the rest begins."""
        begin = 0
        while (end := self._end(begin)) <= self._filled:
            self.received(unpack(self._buffer[begin + LENGTH.size : end]))
            begin = end
        return begin

    def _end(self, begin: int) -> int:
        """Return the end of the frame at `begin`, or of its length field if that is incomplete."""
        if self._filled - begin < LENGTH.size:
            return begin + LENGTH.size
        (length,) = LENGTH.unpack_from(self._buffer, begin)
        if length > MAX_FRAME:
            raise ValueError(f"a frame of {length} bytes is over the limit of {MAX_FRAME}")
        return begin + LENGTH.size + int(length)

    def _keep(self, begin: int) -> None:
        """Move an incomplete frame to the start of a buffer with room for all of it."""
        rest, need = self._buffer[begin : self._filled], self._end(begin) - begin
        if begin == 0 and need <= len(self._buffer):
            return
        # A large frame is read right into memory of its own.
        self._buffer = self._small if need <= PIECE else np.empty(need, np.uint8).data
        self._buffer[: len(rest)] = rest
        self._filled = len(rest)

    def _flush(self) -> None:
        self._is_flushing = False
        while self._is_writable and (self._rest or self._outbox):
            self._rest = self._rest or memoryview(b"".join(self._next_frames()))
            piece, self._rest = self._rest[:PIECE], self._rest[PIECE:]
            self._transport.write(piece)

    def _next_frames(self) -> Iterator[bytes]:
        """Yield one large frame, or small ones that together are worth a write."""
        size = 0
        while self._outbox and size < PIECE:
            *_, frame = heappop(self._outbox)
            size += len(frame)
            yield frame
