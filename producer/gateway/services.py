"""What the routes share: client, hub of events, feeder of batches; one set an application."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, ParamSpec, TypeVar

from fastapi import Depends, Request

from crossmodal.errors import UrlRefused
from crossmodal.settings import Settings
from producer.aio import AsyncClient
from producer.client import Client
from producer.gateway.feeder import BatchRecords, Feeder
from producer.gateway.hub import Hub

P = ParamSpec("P")
T = TypeVar("T")
THREADS = 32  # for calls to Redis and the store, which are short


class Services:
    """One a process. Without `needs_keys`, everybody who reaches the gateway may use it."""

    def __init__(self, settings: Settings, *, needs_keys: bool) -> None:
        self.settings = settings
        self.needs_keys = needs_keys
        self.client = AsyncClient(settings)
        self.hub = Hub(self.client)
        self.batches = BatchRecords(self.sync)
        self.feeder = Feeder(self.sync)
        self._threads = ThreadPoolExecutor(THREADS, "gateway")

    @property
    def sync(self) -> Client:
        """The blocking client, for `call`."""
        return self.client.sync

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A blocking call of a bounded time, in a thread."""
        return await asyncio.to_thread(function, *args, **kwargs)

    def check_image_urls(self) -> None:
        """Raise `UrlRefused` unless pictures may be fetched."""
        if not self.settings.allow_image_urls:
            raise UrlRefused(
                "image.url: this gateway fetches no pictures (CROSSMODAL_ALLOW_IMAGE_URLS): send "
                "its bytes as image.data or a file, or upload it first"
            )

    async def start(self) -> None:
        asyncio.get_running_loop().set_default_executor(self._threads)
        self.hub.start()
        self.feeder.start()

    async def close(self) -> None:
        await self.hub.close()
        await self.call(self.feeder.stop)
        await self.client.close()


def services(request: Request) -> Services:
    """Those of the application that a request came to."""
    found: Any = request.app.state.services
    assert isinstance(found, Services)  # noqa: S101 - for mypy: the application put it there
    return found


ServicesOf = Annotated[Services, Depends(services)]
