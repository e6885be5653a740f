"""Gateways for tests over HTTP: in separate processes, or in this one."""

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from crossmodal.local.stack import Stack
from crossmodal.local.valkey import free_port
from crossmodal.processes import Child, python_module, wait_until
from crossmodal.settings import Settings
from producer.gateway.app import make_app
from producer.gateway.services import Services
from producer.http.connections import MAX_CONNECTIONS
from producer.http.protocol import Yielding

START_S = 60.0


@dataclass(frozen=True)
class Gateway:
    """A running gateway, and an HTTP client without a key."""

    url: str
    http: httpx2.Client
    child: Child
    log: Path

    def as_key(self, token: str) -> httpx2.Client:
        """Return an HTTP client with an API key."""
        return httpx2.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=30
        )


@contextmanager
def running_gateway(
    env: Mapping[str, str],
    folder: Path,
    *options: str,
    port: int | None = None,
    until: str = "/readyz",
) -> Iterator[Gateway]:
    """Run a gateway, and yield it when ready; `options` are those of its command."""
    port = port or free_port()
    log = folder / f"gateway-{port}.log"
    argv = python_module("crossmodal.cli", "gateway", "--port", str(port), *options)
    url = f"http://127.0.0.1:{port}"
    with log.open("ab") as output, Stack(dict(env), output) as stack:
        child = stack.start("gateway", argv, 20)
        with httpx2.Client(base_url=url, timeout=30) as http:
            ready = wait_until(lambda: answers(http, until) or not child.is_alive, START_S)
            assert ready, log.read_text()[-3_000:]
            assert child.is_alive, log.read_text()[-3_000:]
            yield Gateway(url, http, child, log)


def answers(http: httpx2.Client, path: str) -> bool:
    try:
        return http.get(path).status_code == 200
    except httpx2.TransportError:
        return False


@asynccontextmanager
async def calling(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield an HTTP client of a gateway in this process."""
    services: Services = app.state.services
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield http
    await services.client.close()


@contextmanager
def in_thread(settings: Settings, *, needs_keys: bool) -> Iterator[str]:
    """Serve a gateway from a thread of this process; yields its URL."""
    app = make_app(settings, needs_keys=needs_keys)
    with serving(app, app.state.services.hub.stop_streams) as url:
        yield url


@contextmanager
def serving(
    app: ASGIApp, stop: Callable[[], None] = lambda: None, max_connections: int = MAX_CONNECTIONS
) -> Iterator[str]:
    """Serve an application from a thread of this process; yields its URL."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(
            app, port=port, log_config=None, http=Yielding, limit_concurrency=max_connections
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), START_S)
        assert server.started
        yield f"http://127.0.0.1:{port}"
    finally:
        stop()
        server.should_exit = True
        thread.join(START_S)
