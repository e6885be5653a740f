"""Connections on which nothing is asked crowd nobody out."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from tests.gateway import serving

MOST = 10
ANSWERED = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
UNREAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\na"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        if scope["path"] == "/read":
            await Request(scope, receive).body()
        await PlainTextResponse("here")(scope, receive, send)


@pytest.fixture
def url() -> Iterator[str]:
    with serving(app, most=MOST) as url:
        yield url


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\nHost: ", ANSWERED, UNREAD],
    ids=["nothing", "half a head", "an answered request", "a body that nobody reads"],
)  # fmt: skip
def test_connections_that_ask_nothing_give_way(url: str, sent: bytes) -> None:
    place = urlsplit(url)
    with ExitStack() as opened:
        for _ in range(3 * MOST):
            address = (str(place.hostname), place.port or 80)
            opened.enter_context(idle := socket.create_connection(address, 60))
            idle.sendall(sent)
            if sent in (ANSWERED, UNREAD):
                assert idle.recv(1_000).startswith(b"HTTP/1.1 200 ")
        for _ in range(3):
            assert httpx2.get(url).status_code == 200


def test_who_is_being_answered_is_not_cut_off(url: str) -> None:
    """Where all are, there is no room."""
    place = urlsplit(url)
    with ExitStack() as opened:
        for _ in range(MOST):
            address = (str(place.hostname), place.port or 80)
            opened.enter_context(one := socket.create_connection(address, 60))
            one.sendall(UNREAD.replace(b"POST /", b"POST /read"))
        reply = httpx2.get(url)
        assert reply.status_code == 503
