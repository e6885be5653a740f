"""A TCP proxy that can refuse, delay, cut and forget connections and fail HTTP PUTs.

It can also answer in place of Redis.
"""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

CHUNK = 65_536
TICK_S = 0.05
FAILED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_NO_ROOM = b"<Error><Code>XMinioStorageFull</Code><Message>The disk is full.</Message></Error>"
FULL = (
    b"HTTP/1.1 507 Insufficient Storage\r\nContent-Type: application/xml\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_NO_ROOM), _NO_ROOM)
)


@dataclass
class Behaviour:
    """What the proxy does to its connections; by default nothing."""

    refuses: bool = False
    delay_s: float = 0.0
    fails_every_put: int = 0  # 3: every third
    failure: bytes = FAILED
    forgets_after_s: float = 0.0  # of silence, as a NAT: later data is dropped
    resets_after_s: float = 0.0  # of silence, as a load balancer
    says: str = ""  # an error that answers every Redis command


@dataclass(eq=False)
class Link:
    """A connection through the proxy, with both its ends."""

    client: asyncio.StreamWriter
    target: asyncio.StreamWriter | None = None
    is_forgotten: bool = False
    active_at: float = field(default_factory=time.monotonic)

    def idle_s(self) -> float:
        return time.monotonic() - self.active_at

    def abort(self) -> None:
        for writer in self._ends():
            writer.transport.abort()

    def reset(self) -> None:
        """End the connection with RST; closing an end would send FIN."""
        for writer in self._ends():
            end = writer.get_extra_info("socket")
            with suppress(OSError):  # it was just closed
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    def _ends(self) -> list[asyncio.StreamWriter]:
        return [self.client, *([self.target] if self.target else [])]


class Proxy:
    """A forwarder from one loopback port to another, in a thread of its own."""

    def __init__(self, target_port: int) -> None:
        self.behaviour = Behaviour()
        self.port = 0
        self._target_port = target_port
        self._links: set[Link] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._puts = 0
        self.forgotten = self.resets = 0  # connections that were silent for too long
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]

    def reset(self, idle_s: float = 0.0) -> int:
        """Cut connections that have been idle for so long; return how many.

        A firewall or a failing switch does this.
        """
        return int(self._call(self._cut(idle_s)))

    def forget(self, idle_s: float = 0.0) -> int:
        """Drop, silently, what is sent over connections idle for so long; return how many.

        A NAT does this.
        """
        return int(self._call(self._lose(idle_s)))

    def close(self) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _end(self) -> None:
        # Python 3.11 leaves a connection open whose server is closed while it is being accepted.
        while _accepts():  # noqa: ASYNC110 - asyncio tells nobody
            await asyncio.sleep(0)
        self._server.close()
        is_quiet = False
        while not is_quiet:
            await self._cut()  # also those that were being accepted
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            is_quiet = not tasks and not self._links
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for link in self._links:  # of tasks that had not begun
                link.abort()
            self._links.clear()

    async def _cut(self, idle_s: float = 0.0) -> int:
        links = [link for link in self._links if link.idle_s() >= idle_s]
        for link in links:
            link.reset()
        await asyncio.sleep(0.1)  # for their tasks to notice it
        return len(links)

    async def _lose(self, idle_s: float) -> int:
        links = [link for link in self._links if link.idle_s() >= idle_s]
        for link in links:
            link.is_forgotten = True
        return len(links)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(writer)
        self._links.add(link)
        serving = asyncio.get_running_loop().create_task(self._serve(reader, link))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, link: Link) -> None:
        with suppress(OSError, asyncio.CancelledError):
            if self.behaviour.says:
                await self._refuse(reader, link.client)
            elif not self.behaviour.refuses:
                await self._forward(reader, link)
        self._links.discard(link)
        link.abort()

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer each command (an array of strings) with the same error."""
        while line := await reader.readline():
            for _ in range(int(line[1:])):
                length = int((await reader.readline())[1:])
                await reader.readexactly(length + 2)
            writer.write(f"-{self.behaviour.says}\r\n".encode())

    async def _forward(self, reader: asyncio.StreamReader, link: Link) -> None:
        upstream, link.target = await asyncio.open_connection("127.0.0.1", self._target_port)
        back = asyncio.ensure_future(self._copy(upstream, link.client, link))
        there = asyncio.ensure_future(self._copy(reader, link.target, link, is_asked=True))
        idle = asyncio.ensure_future(self._reset_idle(link))
        try:
            await asyncio.wait({back, there, idle}, return_when=asyncio.FIRST_COMPLETED)
            if link.is_forgotten:  # neither end learns that the other has closed
                await asyncio.wait({back, there})
        finally:
            for half in (back, there, idle):
                half.cancel()
            await asyncio.gather(back, there, idle, return_exceptions=True)

    async def _reset_idle(self, link: Link) -> None:
        """Return once nothing was sent for too long."""
        while True:
            await asyncio.sleep(TICK_S)
            if 0 < self.behaviour.resets_after_s < link.idle_s():
                self.resets += 1
                return

    async def _copy(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        link: Link,
        *,
        is_asked: bool = False,
    ) -> None:
        while data := await source.read(CHUNK):
            if self.behaviour.refuses:
                return
            if 0 < self.behaviour.forgets_after_s < link.idle_s() and not link.is_forgotten:
                self.forgotten += 1
                link.is_forgotten = True
            if link.is_forgotten:
                continue
            link.active_at = time.monotonic()
            if self.behaviour.delay_s and is_asked:
                await asyncio.sleep(self.behaviour.delay_s)
            if is_asked and self._fails(data):
                link.client.write(self.behaviour.failure)
                await link.client.drain()
                return
            sink.write(data)
            await sink.drain()

    def _fails(self, data: bytes) -> bool:
        if not self.behaviour.fails_every_put or not data.startswith(b"PUT "):
            return False
        self._puts += 1
        return self._puts % self.behaviour.fails_every_put == 0


def _accepts() -> bool:
    """Return whether a connection is being accepted in the running loop."""
    return any("_accept_connection" in repr(task.get_coro()) for task in asyncio.all_tasks())
