"""A real model host without models, in this process: it records batches, and can die."""

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from crossmodal.jobs.record import GeneratedCaption
from crossmodal.kinds.img2txt import Img2TxtParams
from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.models.contract import UNWATCHED, Link
from worker.host.batcher import Batcher
from worker.host.lanes import Lane, Quiet
from worker.host.pipeline import Described, Drawn, HostRequest, Outcome, Pipeline
from worker.host.protocol import HostInfo
from worker.host.server import Conversation, ModelHost, listen

SIDE = 8


class FakeHost(Pipeline):
    """A pipeline for both tasks; a prompt with the word "fatal" makes it die.

    `batches` are the prompts, or the shapes of the pictures, in order of arrival. A batch stays on
    the device until `may_run` is set.
    """

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.deaths_left = 1_000
        self.may_run = threading.Event()
        self.may_run.set()
        self.loop = asyncio.new_event_loop()
        self.conversations: set[Conversation] = set()

    @property
    def in_hand(self) -> int:
        """How many requests of its clients wait or run."""
        return sum(len(conversation.running) for conversation in list(self.conversations))

    def run(self, batch: Sequence[HostRequest], link: Link = UNWATCHED) -> list[Outcome]:
        self.batches.append([_named(request) for request in batch])
        assert self.may_run.wait(60)
        if self.deaths_left and any("fatal" in name for name in self.batches[-1]):
            self.deaths_left -= 1
            self._die()
        return [_made(request) for request in batch]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep batches on the device meanwhile."""
        self.may_run.clear()
        try:
            yield
        finally:
            self.may_run.set()

    def _die(self) -> None:
        """Die as far as clients can see: all connections end without a reply."""
        dead = threading.Event()

        def hang_up() -> None:
            for conversation in list(self.conversations):
                conversation.abort()
            self.loop.call_soon(dead.set)  # after the connections are lost

        self.loop.call_soon_threadsafe(hang_up)
        dead.wait(60)


class _Known(Conversation):
    """A conversation that its host can end."""

    def __init__(self, host: ModelHost, fake: FakeHost) -> None:
        super().__init__(host)
        self._fake = fake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._fake.conversations.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._fake.conversations.discard(self)


@contextmanager
def serving(path: Path) -> Iterator[FakeHost]:
    """Yield a fake host that listens at `path`."""
    fake = FakeHost()
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        tasks = (Task("txt2img"), Task("img2txt"))
        pipelines, quiet = dict.fromkeys(tasks, fake), Quiet()
        lanes = Lane(pipelines, 1), Lane(pipelines, 1)
        batcher = Batcher(pipelines, lanes, quiet, max_batch=64, bulk_batch=64)
        info = HostInfo("fake", "0", "cpu", SIDE, os.getpid())
        host = ModelHost(info, batcher)
        server = await listen(path, lambda: _Known(host, fake))
        ready.set()
        await stop.wait()
        server.close()
        for conversation in list(fake.conversations):
            conversation.abort()
        await asyncio.sleep(0)  # so that they are closed

    thread = threading.Thread(target=fake.loop.run_until_complete, args=[serve()])
    thread.start()
    assert ready.wait(60)
    try:
        yield fake
    finally:
        fake.loop.call_soon_threadsafe(stop.set)
        thread.join()
        fake.loop.close()


def _named(request: HostRequest) -> str:
    if isinstance(request.params, Txt2ImgParams):
        return request.params.prompt
    assert request.image is not None
    return str(request.image.shape)


def _made(request: HostRequest) -> Outcome:
    params = request.params
    if isinstance(params, Img2TxtParams):
        return Described((GeneratedCaption(text="a picture", log_probability=-1.0),))
    level = getattr(params, "seed", 0) % 256
    images = np.full((params.count, SIDE, SIDE, 3), level, np.uint8)
    return Drawn(images, (), {})
