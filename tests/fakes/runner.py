"""A worker's job runner on an event loop of its own, for tests that wait for each job."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import uvloop

from crossmodal.settings import Settings
from worker.attempt import JobRunner
from worker.decoders.pool import PROGRAM, Decoders
from worker.endings import Ending, TakenMessage
from worker.host.client import HostClient
from worker.hosts import Hosts

WAIT_S = 60.0


class LoopRunner:
    """A `JobRunner` in another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, runner: JobRunner) -> None:
        self._loop = loop
        self.runner = runner

    def start(self, taken: TakenMessage) -> "Future[Ending]":
        """Start on a taken message."""
        return asyncio.run_coroutine_threadsafe(self.runner.run(taken), self._loop)

    def run(self, taken: TakenMessage) -> Ending:
        """Run what a taken message asks for; return its ending."""
        return self.start(taken).result(WAIT_S)


@contextmanager
def looping(
    settings: Settings, socket: Path, wait_s: float = 60, decoder: str = PROGRAM
) -> Iterator[LoopRunner]:
    """Yield a runner connected to the model host at `socket`, whose decoders run a program."""
    loop = uvloop.new_event_loop()  # as a worker has
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def made() -> JobRunner:
        host = HostClient(socket, wait_s, timeout_s=60)
        return JobRunner(settings, Hosts.only(host), Decoders(settings, decoder))

    runner = asyncio.run_coroutine_threadsafe(made(), loop).result(WAIT_S)
    yield LoopRunner(loop, runner)
    asyncio.run_coroutine_threadsafe(runner.close(), loop).result(WAIT_S)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(WAIT_S)
    loop.close()
