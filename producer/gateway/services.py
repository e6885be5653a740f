"""The services that all routes share: client, event hub, ledger access, readiness."""

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from functools import partial
from typing import Annotated, Any, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request

from crossmodal.errors import UrlRefused
from crossmodal.jobs.access import ApiKeys
from crossmodal.jobs.callers import Callers
from crossmodal.jobs.calls import Call
from crossmodal.jobs.dead import DeadLetters
from crossmodal.jobs.files import Files
from crossmodal.jobs.http_batches import HttpBatches
from crossmodal.jobs.names import BACKGROUND
from crossmodal.jobs.server import check_writes
from crossmodal.jobs.workers import Workers
from crossmodal.settings import Settings
from producer.aio import AsyncClient
from producer.client import Client
from producer.gateway.hub import Hub
from producer.gateway.readiness import Readiness
from producer.http.connections import Connections

P = ParamSpec("P")
T = TypeVar("T")
STORE_THREADS = 32  # for object-store calls, each of which may hang until its timeout
LONG_THREADS = 4  # for CPU-bound work of seconds
Turns = Generator[None, None, T]


class GatewayClient(AsyncClient):
    """A client whose Redis connections are named as a gateway's."""

    _what = "gateway"


class Services:
    """The services of one gateway process. Without `needs_keys`, callers need no API key."""

    def __init__(self, settings: Settings, *, needs_keys: bool) -> None:
        self.settings = settings
        self.needs_keys = needs_keys
        self.client = GatewayClient(settings)
        self.hub = Hub(self.client)
        self.calls = self.client.calls
        self.keys = ApiKeys(settings)
        self.letters = DeadLetters(settings, self.calls.ledger)
        self.batches = HttpBatches(settings)
        self.files = Files(settings)
        self.callers = Callers(settings, self.calls.ledger)
        self.has_background = False  # set by the check of `redis_writes`
        self.connections = Connections()
        self.redis_writes = Readiness(self._check_redis)
        self.store_writes = Readiness(self._check_store)
        self._store_threads = CapacityLimiter(STORE_THREADS)
        self._long_threads = CapacityLimiter(LONG_THREADS)

    @property
    def sync(self) -> Client:
        """The blocking client, for work in threads."""
        return self.client.sync

    async def ask(self, call: Call[T]) -> T:
        """Run a Redis call and return its result."""
        return await self.client.run(call)

    async def call_store(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking object-store call in a thread pool separate from that of Redis calls."""
        run = partial(function, *args, **kwargs)
        return await to_thread.run_sync(run, limiter=self._store_threads)

    async def in_turns(self, work: Turns[T]) -> T:
        """Run long work in a small thread pool of its own and return its result.

        At each `yield`, the work frees its thread for other work.
        """
        while True:
            ended = await to_thread.run_sync(_turn, work, limiter=self._long_threads)
            if ended is not None:
                return ended[0]

    async def pieces(self, chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the chunks of a blob's stream, each read by `call_store`."""
        while (piece := await self.call_store(next, chunks, None)) is not None:
            yield piece

    def check_image_urls(self) -> None:
        """Raise `UrlRefused` unless this gateway may fetch pictures."""
        if not self.settings.allow_image_urls:
            raise UrlRefused(
                "image.url: this gateway fetches no pictures (CROSSMODAL_ALLOW_IMAGE_URLS): send "
                "its bytes as image.data or a file, or upload it first"
            )

    async def start(self) -> None:
        self.hub.start()

    async def close(self) -> None:
        await self.hub.close()
        await self.client.close()

    async def check(self) -> None:
        """Raise the error that any submission would raise now."""
        await self.redis_writes.check()
        await self.ask(self.calls.ledger.memory.check())
        await self.store_writes.check()

    async def _check_redis(self) -> None:
        workers = await self.ask(Workers(self.settings).recent())
        self.has_background = any(BACKGROUND in worker.queues for worker in workers)
        await self.ask(check_writes(self.settings))

    async def _check_store(self) -> None:
        await self.call_store(lambda: self.sync.storage.check())


def _turn(work: Turns[T]) -> tuple[T] | None:
    """Run work to its next `yield`; return its result in a tuple once it is done."""
    try:
        next(work)
    except StopIteration as e:
        return (e.value,)
    return None


async def services(request: Request) -> Services:
    """Return the services of a request's application."""
    found: Any = request.app.state.services
    assert isinstance(found, Services)  # noqa: S101 - for mypy: the application put it there
    return found


ServicesOf = Annotated[Services, Depends(services)]
