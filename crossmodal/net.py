"""GET and POST to URLs given by users, guarded against server-side request forgery (SSRF).

A name is resolved once per connection, all its addresses must be public, and the connection goes to
one of exactly these, which defeats DNS rebinding. TLS verifies the name, not the address. Proxies
from the environment are ignored, and nothing is decompressed.

`allow_private` allows loopback and private networks, for receivers there.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from ipaddress import ip_address
from typing import Any

import httpcore2
import httpx2

from crossmodal.addresses import Address, literal, refusal
from crossmodal.errors import FetchFailed, ImageTooLarge, UrlRefused, described

MAX_URL_LENGTH = 2_048
MAX_REDIRECTS = 3
MAX_ANSWER = 16_384  # bytes read of a response to a POST
FINISH_S = 1.0  # timeout for reading them
KEPT_S, MAX_KEPT = 2.0, 64  # idle connections; servers close them after 5 s
CONNECT_S = 5.0  # for each address of a name that has several
REDIRECTS = (301, 302, 303, 307, 308)
ACCEPT = {"Accept": "image/*", "Accept-Encoding": "identity"}

Resolve = Callable[[str, int], list[str]]
Refusal = Callable[[Address], str | None]

# A numeric last label would make the name an IPv4 address in an old notation.
_NAME = re.compile(r"([a-z0-9_-]{1,63}\.)*(?!(\d+|0x[0-9a-f]*)$)[a-z0-9_-]{1,63}")
# Names reserved for private networks (RFC 6761, 6762, 8375), and names of one label.
_PRIVATE_NAME = re.compile(r"(^|\.)(localhost|local|internal|home\.arpa)$|^[^.]*$")
_ALLOW = "use a public one, or set CROSSMODAL_ALLOW_PRIVATE_URLS if all users are trusted"
_FAILURES = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError)


def check_url(url: str) -> httpx2.URL:
    """Parse and check a URL without resolving its name. Raises `UrlRefused`."""
    if len(url) > MAX_URL_LENGTH:
        raise UrlRefused(f"the URL has {len(url)} characters, {MAX_URL_LENGTH} are allowed")
    if not url.isprintable():
        raise UrlRefused("the URL contains control characters: remove or percent-encode them")
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as e:
        raise UrlRefused(f"the URL cannot be read: {e}") from e
    if fault := _fault(parsed):
        raise UrlRefused(f"the URL has {fault}")
    return parsed


def check_public(url: str, allow_private: bool, where: str) -> None:
    """Raise `UrlRefused` if the URL itself shows that it will be refused.

    Names are not resolved here: their addresses are checked on connecting.
    """
    try:
        host = check_url(url).raw_host.decode().lower()
    except UrlRefused as e:
        raise UrlRefused(f"{where}: {e}") from e
    address = literal(host)
    if address is None:
        if _PRIVATE_NAME.search(host) and not allow_private:
            raise UrlRefused(f"{where}: {host!r} is a name of a private network: {_ALLOW}")
    elif kind := refusal(address, allow_private):
        raise UrlRefused(f"{where}: {host!r} is {kind}: {_remedy(address)}")


def _remedy(address: Address) -> str:
    """Return the remedy for a refused address; no setting allows some of them."""
    return "use a public one" if refusal(address, allow_private=True) else _ALLOW


def _fault(url: httpx2.URL) -> str | None:
    host = url.raw_host.decode()
    if url.userinfo:
        return "a user or password: remove the part before the @"
    if url.scheme not in ("http", "https"):
        return f"the scheme {url.scheme!r}: use http or https"
    if url.port is not None and not 0 < url.port < 65_536:
        return f"the port {url.port}: use one from 1 to 65535"
    if literal(host) or (_NAME.fullmatch(host) and len(host) < 254):
        return None
    return f"the host {host!r}: use a name, or a complete address (127.0.0.1, [::1])"


def look_up(host: str, port: int) -> list[str]:
    """Return all addresses of a name from the system's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def fetch(
    url: str,
    *,
    max_bytes: int,
    timeout_s: float,
    allow_private: bool = False,
    resolve: Resolve = look_up,
    _refusal: Refusal | None = None,
) -> bytes:
    """GET `url`, following redirects, and return the body, all within `timeout_s`.

    Raises `UrlRefused`, `FetchFailed`, or `ImageTooLarge` for more than `max_bytes`.
    """
    target = check_url(url)
    backend = _Backend(resolve, _refusal or partial(refusal, allow_private=allow_private))
    async with _errors(target, timeout_s):
        for _ in range(MAX_REDIRECTS + 1):
            tls = _tls() if target.scheme == "https" else None
            async with (
                httpcore2.AsyncConnectionPool(ssl_context=tls, network_backend=backend) as pool,
                _exchange(pool, "GET", target, ACCEPT) as response,
            ):
                if response.status not in REDIRECTS:
                    return await _body(response, max_bytes)
                target = _redirected(target, response)
        raise UrlRefused(f"the URL redirects more than {MAX_REDIRECTS} times: use the final URL")


class Poster:
    """A client for concurrent POSTs to URLs given by users.

    A connection whose response was short is reused for the next POST to the same host. Its address
    was checked when it was opened.
    """

    def __init__(
        self,
        *,
        timeout_s: float,
        allow_private: bool = False,
        resolve: Resolve = look_up,
        _refusal: Refusal | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        backend = _Backend(resolve, _refusal or partial(refusal, allow_private=allow_private))
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=_tls(),
            max_connections=None,
            max_keepalive_connections=MAX_KEPT,
            keepalive_expiry=KEPT_S,
            network_backend=backend,
        )

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """POST `body` and return the response's status; redirects are not followed.

        Raises `UrlRefused` or `FetchFailed`.
        """
        target = check_url(url)
        status: int | None = None
        try:
            async with (
                _errors(target, self._timeout_s),
                _exchange(self._pool, "POST", target, headers, body) as response,
            ):
                status = response.status
                await _finish(response)
        except FetchFailed:
            if status is None:  # else the status has arrived, and the body does not matter
                raise
        return status

    async def close(self) -> None:
        await self._pool.aclose()


async def _finish(response: httpcore2.Response) -> None:
    """Read a short response to its end, so that its connection can be reused."""
    length = _header(response, b"content-length", "0" if response.status == 204 else "")
    if not length.isdigit() or int(length) > MAX_ANSWER:
        return
    with suppress(TimeoutError, *_FAILURES):
        async with asyncio.timeout(FINISH_S), aclosing(response.aiter_stream()) as chunks:
            async for _ in chunks:
                continue


@dataclass(frozen=True)
class _Backend(httpcore2.AnyIOBackend):
    """A network backend that connects only to checked addresses."""

    resolve: Resolve
    refusal: Refusal

    async def connect_tcp(
        self, host: str, port: int, *_: Any, **__: Any
    ) -> httpcore2.AsyncNetworkStream:
        known = literal(host)
        *others, last = [known] if known else await self._look_up(host, port)
        for address in (*others, last):
            if kind := self.refusal(address):  # don't reveal the address to users
                raise UrlRefused(f"{host!r} leads to an address that is {kind}: {_remedy(address)}")
        for address in others:
            with suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                return await super().connect_tcp(str(address), port, CONNECT_S)
        return await super().connect_tcp(str(last), port, CONNECT_S)

    async def _look_up(self, host: str, port: int) -> list[Address]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(_lookups(), self.resolve, host, port)
        except (OSError, UnicodeError) as e:
            raise FetchFailed(f"the name {host!r} cannot be resolved: {described(e)}") from e
        if not found:
            raise FetchFailed(f"the name {host!r} has no address")
        return [ip_address(address) for address in found]


@asynccontextmanager
async def _exchange(
    pool: httpcore2.AsyncConnectionPool,
    method: str,
    url: httpx2.URL,
    headers: Mapping[str, str],
    body: bytes | None = None,
) -> AsyncIterator[httpcore2.Response]:
    """Send a request and yield its response, read up to the headers."""
    target = httpcore2.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )
    lines = [("Host", url.netloc.decode()), ("User-Agent", "crossmodal"), *headers.items()]
    async with pool.stream(method, target, headers=lines, content=body) as response:
        yield response


async def _body(response: httpcore2.Response, max_bytes: int) -> bytes:
    if response.status != 200:
        raise FetchFailed(f"the response has the status {response.status}, not 200")
    if (encoding := _header(response, b"content-encoding", "identity").lower()) != "identity":
        raise FetchFailed(
            f"the response has the content encoding {encoding!r}, but 'identity' was requested"
        )
    too_large = ImageTooLarge(f"the response has more than the {max_bytes} bytes that are allowed")
    if int(_header(response, b"content-length", "0")) > max_bytes:
        raise too_large
    body = bytearray()
    async with aclosing(response.aiter_stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > max_bytes:
                raise too_large
    return bytes(body)


def _redirected(url: httpx2.URL, response: httpcore2.Response) -> httpx2.URL:
    location = _header(response, b"location", "")
    if not location:
        raise FetchFailed("the URL redirects without a Location header")
    try:
        target = check_url(str(url.join(location)))
    except (httpx2.InvalidURL, ValueError, UrlRefused) as e:
        raise UrlRefused(f"the URL redirects to a URL that is not allowed: {e}") from e
    if url.scheme == "https" and target.scheme != "https":
        raise UrlRefused("the URL redirects from https to http, which is not allowed")
    return target


@asynccontextmanager
async def _errors(url: httpx2.URL, timeout_s: float) -> AsyncIterator[None]:
    where = url.netloc.decode()
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as e:
        raise FetchFailed(f"{where} did not answer completely within {timeout_s:g} s") from e
    except httpcore2.ProtocolError as e:  # its message may quote the server's bytes
        raise FetchFailed(f"{where} did not answer in HTTP") from e
    except _FAILURES as e:
        raise FetchFailed(f"{where} failed: {str(e)[:200] or type(e).__name__}") from e


def _header(response: httpcore2.Response, name: bytes, default: str) -> str:
    found = (value for key, value in response.headers if key.lower() == name)
    return next((value.decode(errors="replace") for value in found), default)


@lru_cache
def _lookups() -> ThreadPoolExecutor:
    """Return the threads for lookups, so that hanging lookups block no other work."""
    return ThreadPoolExecutor(16, thread_name_prefix="lookup")


@lru_cache
def _tls() -> ssl.SSLContext:
    return httpcore2.default_ssl_context()
