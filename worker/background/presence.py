"""Shows that the background process is alive: to probes by a file, to all others in Redis."""

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from crossmodal.errors import BrokerUnavailable
from crossmodal.jobs.calls import Call
from crossmodal.jobs.names import BACKGROUND
from crossmodal.jobs.runners import AsyncRunner
from crossmodal.jobs.workers import Workers, worker_name
from crossmodal.settings import Settings
from worker import beat
from worker.health import UnitFiles, WorkerFiles, lock
from worker.supervisor import make_folder

BEAT_S = 1.0
TURN_S = 60.0  # max time that a part of the process may wait for Redis

log = logging.getLogger(__name__)


class Part(Protocol):
    """A part of the process that works in a loop, and notes each turn by the monotonic clock."""

    turned_at: float


class Presence:
    """A folder like a supervisor's, read by `crossmodal health`, and an entry among the workers.

    The folder exists within the `with` block.
    """

    def __init__(self, settings: Settings, runner: AsyncRunner, ready_file: Path | None) -> None:
        self._runner = runner
        self._ready_file = ready_file
        self._workers = Workers(settings)
        self._name = worker_name(BACKGROUND, os.getpid())
        self._folder = make_folder(settings.run_dir)
        self._lock = lock(self._folder)
        self._files = WorkerFiles(UnitFiles(self._folder, BACKGROUND), BACKGROUND)
        self._files.make_mark(needs_models=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.close()

    async def show(self, stopping: asyncio.Event, parts: Iterable[Part]) -> None:
        """Announce the process until `stopping` is set, and beat until this is canceled."""
        told = asyncio.create_task(stopping.wait())
        beating = asyncio.create_task(self._beat(stopping, parts))
        try:
            while not stopping.is_set():
                if await self._say(self._workers.announce(self._name, queues=[BACKGROUND])):
                    self._note_ready()
                await asyncio.wait({told}, timeout=BEAT_S)
            await self.leave()
            await beating
        finally:
            beating.cancel()

    async def _beat(self, stopping: asyncio.Event, parts: Iterable[Part]) -> None:
        """Beat while the event loop and all parts turn, whether Redis answers or not."""
        while True:
            since = time.monotonic() - TURN_S
            if stopping.is_set() or all(part.turned_at > since for part in parts):
                beat.touch(self._files.beat)
            await asyncio.sleep(BEAT_S)

    async def leave(self) -> None:
        """Remove the process from the list of workers."""
        await self._say(self._workers.leave(self._name))

    def _note_ready(self) -> None:
        if self._files.ready.exists():
            return
        log.info("ready: webhooks are sent, and batches are run")
        for file in (self._files.ready, self._ready_file):
            if file is not None:
                file.touch()

    async def _say(self, call: Call[None]) -> bool:
        """Run a call; return whether Redis was available."""
        try:
            await self._runner.run(call)
        except BrokerUnavailable as e:
            log.debug("the heartbeat of the background process is not recorded: %s", e)
            return False
        return True
