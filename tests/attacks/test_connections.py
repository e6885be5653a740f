"""Connections that send no request, or read no answer, do not crowd out others."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx2
import pytest
from psutil import Process
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from producer.http import protocol
from tests.gateway import serving
from tests.waiting import until

MOST = 10
ANSWERED = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
LARGE = b"GET /large HTTP/1.1\r\nHost: localhost\r\n"
UNREAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\na"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        if scope["path"] == "/read":
            await Request(scope, receive).body()
        text = "here" * 10_000_000 if scope["path"] == "/large" else "here"
        await PlainTextResponse(text)(scope, receive, send)


@pytest.fixture
def url() -> Iterator[str]:
    with serving(app, max_connections=MOST) as url:
        yield url


def connected(url: str) -> socket.socket:
    place = urlsplit(url)
    return socket.create_connection((str(place.hostname), place.port or 80), 60)


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HTTP/1.1\r\nHost: ", ANSWERED, UNREAD],
    ids=["nothing", "half a head", "an answered request", "a body that nobody reads"],
)
def test_connections_that_ask_nothing_give_way(url: str, sent: bytes) -> None:
    with ExitStack() as opened:
        for _ in range(3 * MOST):
            opened.enter_context(idle := connected(url))
            idle.sendall(sent)
            if sent in (ANSWERED, UNREAD):
                assert idle.recv(1_000).startswith(b"HTTP/1.1 200 ")
        for _ in range(3):
            assert httpx2.get(url).status_code == 200


def test_who_is_being_answered_is_not_cut_off(url: str) -> None:
    """If all connections are being answered, there is no room."""
    with ExitStack() as opened:
        for _ in range(MOST):
            opened.enter_context(one := connected(url))
            one.sendall(UNREAD.replace(b"POST /", b"POST /read"))
        reply = httpx2.get(url)
        assert reply.status_code == 503


@pytest.mark.parametrize(
    "sent", [LARGE + b"\r\n", LARGE + b"Connection: close\r\n\r\n"], ids=["kept", "closed"]
)
def test_connections_whose_answer_nobody_reads_give_way(url: str, sent: bytes) -> None:
    with ExitStack() as opened:
        for _ in range(MOST):
            opened.enter_context(one := connected(url))
            one.sendall(sent)
            assert one.recv(10).startswith(b"HTTP/1.1 2")
        assert httpx2.get(url).status_code == 200


def test_who_reads_an_answer_too_slowly_gets_no_more_of_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that reads on gets the whole answer."""
    monkeypatch.setattr(protocol, "GRACE_S", 0.5)
    with connected(url) as one, connected(url) as other:
        for each in (one, other):
            each.sendall(LARGE + b"Connection: close\r\n\r\n")
        read = 0
        while part := other.recv(1_000_000):
            read += len(part)
        assert read > 40_000_000
        until(lambda: not _is_open(one), 30, "the end of the connection")


def _is_open(one: socket.socket) -> bool:
    """Return whether the server, in this process, still holds its end of a connection."""
    port = one.getsockname()[1]
    return any(other.raddr and other.raddr.port == port for other in Process().net_connections())
