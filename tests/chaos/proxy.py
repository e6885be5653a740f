"""A TCP proxy that can refuse, delay, cut and forget connections, answer in place of Redis, and
fail every third HTTP PUT."""

import asyncio
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

CHUNK = 65_536
TICK_S = 0.05
FAILED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass
class Behaviour:
    """What the proxy does to those who come through it; the default is nothing."""

    refuses: bool = False
    delay_s: float = 0.0
    fails_every_put: int = 0  # 3: every third
    forgets_after_s: float = 0.0  # of silence, as a NAT: what is sent afterwards gets nowhere
    resets_after_s: float = 0.0  # of silence, as a load balancer
    says: str = ""  # as Redis refuses: to whoever asks anything, before it is sent on


@dataclass
class Moved:
    """When a connection has last been used."""

    at: float = field(default_factory=time.monotonic)
    is_forgotten: bool = False


class Proxy:
    """Forwards a loopback port to another, in a thread of its own, as it is told to."""

    def __init__(self, target_port: int) -> None:
        self.behaviour = Behaviour()
        self.port = 0
        self._target_port = target_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._puts = 0
        self._known: list[Moved] = []
        self.forgotten = self.resets = 0  # connections
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]

    def reset(self) -> None:
        """Cut every connection, as a firewall or a failing switch does."""
        self._call(self._cut())

    def forget(self) -> None:
        """Have all connections that there are lead nowhere, in silence."""
        for moved in tuple(self._known):
            moved.is_forgotten = True

    def close(self) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _end(self) -> None:
        self._server.close()
        await self._cut()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _cut(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0.1)  # for their tasks to see it

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(OSError, asyncio.CancelledError):
            if self.behaviour.says:
                await self._refuse(reader, writer)
            elif not self.behaviour.refuses:
                await self._forward(reader, writer)
        self._writers.discard(writer)
        writer.transport.abort()

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer each command, which is an array of strings, with the same error."""
        while line := await reader.readline():
            for _ in range(int(line[1:])):
                length = int((await reader.readline())[1:])
                await reader.readexactly(length + 2)
            writer.write(f"-{self.behaviour.says}\r\n".encode())

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, target = await asyncio.open_connection("127.0.0.1", self._target_port)
        moved = Moved()
        self._known.append(moved)
        halves = {
            asyncio.ensure_future(self._copy(upstream, writer, moved)),
            asyncio.ensure_future(self._copy(reader, target, moved, writer)),
            asyncio.ensure_future(self._reset_idle(moved)),
        }
        try:
            await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for half in halves:
                half.cancel()
            target.transport.abort()
            await asyncio.gather(*halves, return_exceptions=True)

    async def _reset_idle(self, moved: "Moved") -> None:
        """Return once nothing was sent for too long."""
        while True:
            await asyncio.sleep(TICK_S)
            if 0 < self.behaviour.resets_after_s < time.monotonic() - moved.at:
                self.resets += 1
                return

    async def _copy(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        moved: "Moved",
        client: asyncio.StreamWriter | None = None,
    ) -> None:
        while data := await source.read(CHUNK):
            if self.behaviour.refuses:
                return
            now = time.monotonic()
            if moved.is_forgotten or 0 < self.behaviour.forgets_after_s < now - moved.at:
                self.forgotten += not moved.is_forgotten
                moved.is_forgotten = True
                continue
            moved.at = now
            if self.behaviour.delay_s and client is not None:
                await asyncio.sleep(self.behaviour.delay_s)
            if client is not None and self._fails(data):
                client.write(FAILED)
                await client.drain()
                return
            sink.write(data)
            await sink.drain()

    def _fails(self, data: bytes) -> bool:
        if not self.behaviour.fails_every_put or not data.startswith(b"PUT "):
            return False
        self._puts += 1
        return self._puts % self.behaviour.fails_every_put == 0
