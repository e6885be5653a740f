"""Requests with unfinished bodies, over raw sockets, for every route that reads a body."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.waiting import until

FORM = 'form-data; name="file"; filename="a"\r\nContent-Type: image/png'
MULTIPART = "multipart/form-data; boundary=x"


@dataclass(frozen=True)
class Route:
    """A route, a media type that it reads, and the beginning of such a body."""

    path: str
    kind: str = "application/json"
    begin: bytes = b'{"a": "'


PART = f"--x\r\nContent-Disposition: {FORM}\r\n\r\n".encode()
ROUTES = (
    Route("/v1/jobs"),
    Route("/v1/jobs", MULTIPART, PART),
    Route("/v1/jobs/cancel"),
    Route("/v1/uploads", "image/png", b"\x89PNG"),
    Route("/v1/uploads"),
    Route("/v1/batches", "application/jsonl"),
    Route("/v1/batches"),
    Route("/v1/files", MULTIPART, PART),
    Route("/v1/images/generations"),
    Route("/images/generations"),
    Route("/v1/chat/completions"),
    Route("/chat/completions"),
    Route("/sdapi/v1/txt2img"),
    Route("/sdapi/v1/interrogate"),
    Route("/sdapi/v1/options"),
)
MCP = Route("/mcp")


class Half:
    """A partly sent request."""

    def __init__(self, url: str, route: Route, token: str, length: int) -> None:
        place = urlsplit(url)
        self._socket = socket.create_connection((str(place.hostname), place.port or 80), 60)
        self._route = route
        head = (
            f"POST {route.path} HTTP/1.1\r\nHost: localhost:{place.port}\r\n"
            f"Content-Type: {route.kind}\r\nAccept: application/json, text/event-stream\r\n"
            f"Authorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n"
        )
        self._socket.sendall(head.encode())
        self._socket.setblocking(False)
        self.answer = b""

    def send(self, count: int) -> None:
        """Send `count` bytes of the body, or fewer if the response comes first."""
        left = self._route.begin + b"a" * (count - len(self._route.begin))
        while left and not self.is_answered():
            with suppress(BlockingIOError):
                left = left[self._socket.send(left) :]

    def is_answered(self) -> bool:
        """Whether a response has started, or the connection was closed."""
        with suppress(BlockingIOError):
            found = self._socket.recv(65_536)
            self.answer += found or b" "
        return bool(self.answer)

    @property
    def status(self) -> int:
        """The response's status, once it has come."""
        until(lambda: self.is_answered() and b"\r\n\r\n" in self.answer, 60, "an answer")
        return int(self.answer.split()[1])

    def close(self) -> None:
        self._socket.close()


Opening = Callable[[Route, str, int], Half]


@contextmanager
def requests_at(url: str) -> Iterator[Opening]:
    """Yield a function that begins a request, from route, token and Content-Length."""
    begun: list[Half] = []

    def begin(route: Route, token: str, length: int) -> Half:
        begun.append(half := Half(url, route, token, length))
        return half

    try:
        yield begin
    finally:
        for half in begun:
            half.close()
