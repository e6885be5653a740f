"""Gateways in processes of their own, for tests that speak HTTP to them."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from crossmodal.local.stack import Stack
from crossmodal.local.valkey import free_port
from crossmodal.processes import Child, wait_until

START_S = 60.0


@dataclass(frozen=True)
class Gateway:
    """A gateway that runs, and a client without a key."""

    url: str
    http: httpx2.Client
    child: Child
    log: Path

    def as_key(self, token: str) -> httpx2.Client:
        """A client that calls with an API key."""
        return httpx2.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=30
        )


@contextmanager
def running_gateway(
    env: Mapping[str, str], folder: Path, *options: str, port: int | None = None,
    until: str = "/readyz",
) -> Iterator[Gateway]:  # fmt: skip
    """A gateway that is ready; `options` are those of its command."""
    port = port or free_port()
    log = folder / f"gateway-{port}.log"
    argv = [sys.executable, "-m", "crossmodal.cli", "gateway", "--port", str(port), *options]
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
