"""The background process, or a part of it in a thread, and work for it."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import new_job_id
from crossmodal.jobs.origin import Origin, Webhook
from crossmodal.jobs.runners import AsyncRunner, Runner
from crossmodal.jobs.submission import Submission
from crossmodal.kinds.task import Task
from crossmodal.local.stack import Stack
from crossmodal.processes import Child
from crossmodal.settings import Settings
from tests.waiting import until

HERE = "http://gateway.example"


@contextmanager
def background(env: dict[str, str], folder: Path) -> Iterator[Child]:
    """Run `crossmodal background` until the block ends; its output is `log` in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    ready = folder / "ready"
    with (folder / "log").open("wb") as log, Stack(env, log) as stack:
        child = stack.start_background("--ready-file", str(ready))
        until(lambda: ready.exists() or not child.is_alive, 90, "the background process")
        assert child.is_alive, (folder / "log").read_text()
        yield child


class Part(Protocol):
    """A part of the background process."""

    async def run(self, stopping: asyncio.Event) -> None: ...


@dataclass
class Running:
    """A part running in a thread."""

    loop: asyncio.AbstractEventLoop
    stopping: asyncio.Event
    task: "asyncio.Task[None]"

    def stop(self) -> None:
        """Stop the part gracefully."""
        self.loop.call_soon_threadsafe(self.stopping.set)

    def kill(self) -> None:
        """Cancel the part at once."""
        self.loop.call_soon_threadsafe(self.task.cancel)


@contextmanager
def running(settings: Settings, make: Callable[[AsyncRunner], Part]) -> Iterator[Running]:
    """Run a part of the background process until the block ends."""
    begun: Future[Running] = Future()

    async def main() -> None:
        runner = AsyncRunner(settings)
        stopping = asyncio.Event()
        task = asyncio.create_task(make(runner).run(stopping))
        begun.set_result(Running(asyncio.get_running_loop(), stopping, task))
        with suppress(asyncio.CancelledError):
            await task
        await runner.close()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    part = begun.result(30)
    try:
        yield part
    finally:
        with suppress(RuntimeError):  # its loop has ended already
            part.stop()
        thread.join(60)
        assert not thread.is_alive()


def hooked(runner: Runner, settings: Settings, url: str, owner: str = "") -> str:
    """Return the id of an ended job with a webhook to `url`."""
    ledger, job_id = JobLedger(settings), new_job_id()
    origin = Origin(owner, webhook=Webhook(url=url, base=HERE))
    runner.run(ledger.submit(Submission(job_id, Task("txt2img"), "{}", "", origin=origin)))
    runner.run(ledger.cancel(job_id))
    return job_id
