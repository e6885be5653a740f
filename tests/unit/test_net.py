"""What URLs of users may lead to: tried against real servers on loopback."""

import asyncio
import errno
import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from crossmodal import net
from crossmodal.addresses import Address, refusal
from crossmodal.errors import FetchFailed, ImageTooLarge, UrlRefused
from tests.at_once import at_once
from tests.conftest import need

LIMIT = 100_000
PUBLIC = "93.184.215.14"

ALLOWED = "CROSSMODAL_ALLOW_PRIVATE_URLS"
Answer = Callable[["Handler"], object]


class Handler(BaseHTTPRequestHandler):
    """Answers as the site's route says, and notes what it was asked."""

    protocol_version = "HTTP/1.1"
    server: "Site"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.path, dict(self.headers), body))
        with suppress(ConnectionError):  # the client may well have gone: that is tested
            self.server.routes[self.path](self)

    do_POST = do_GET

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: pytest shows what matters."""


class Site(ThreadingHTTPServer):
    """A server on a loopback address; `stopped` is set when the test is over."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Handler)
        self.port = self.server_address[1]
        self.routes: dict[str, Answer] = {"/": lambda to: to.answer(200, b"a picture")}
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    def __enter__(self) -> "Site":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.shutdown()
        self.thread.join()
        self.server_close()

    def get_request(self) -> tuple[socket.socket, Any]:
        self.connections += 1
        return super().get_request()

    def url(self, path: str = "/", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def fetch(url: str, timeout_s: float = 60, **options: Any) -> bytes:
    return asyncio.run(net.fetch(url, max_bytes=LIMIT, timeout_s=timeout_s, **options))


def post(url: str, body: bytes, headers: dict[str, str], **options: Any) -> int:
    """One post, by a `Poster` of its own."""
    poster = net.Poster(**options)

    async def once() -> int:
        try:
            return await poster.post(url, body, headers)
        finally:
            await poster.close()

    return asyncio.run(once())


def only_this_machine(address: Address) -> str | None:
    """The real rules, with one address of loopback in the part of a public one."""
    return None if str(address) == "127.0.0.1" else refusal(address)


class Names:
    """A resolver that gives one answer after the other, and counts."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


ADDRESSES = [
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("10.0.0.1", "private"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.168.1.1", "private"),
    ("100.64.0.1", "carrier"),
    ("100.127.255.255", "carrier"),
    ("169.254.169.254", "metadata"),
    ("100.100.100.200", "metadata"),
    ("168.63.129.16", "metadata"),
    ("169.254.0.1", "link-local"),
    ("0.0.0.0", "unspecified"),
    ("0.1.2.3", "unspecified"),
    ("192.0.0.1", "reserved"),
    ("192.0.2.1", "documentation"),
    ("198.51.100.1", "documentation"),
    ("203.0.113.1", "documentation"),
    ("198.18.0.1", "benchmarks"),
    ("198.19.255.255", "benchmarks"),
    ("192.88.99.1", "6to4"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.255", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "broadcast"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::127.0.0.1", "IPv4 in IPv6"),
    ("::8.8.8.8", "IPv4 in IPv6"),
    ("::ffff:127.0.0.1", "IPv4 in IPv6"),
    ("::ffff:8.8.8.8", "IPv4 in IPv6"),
    ("::ffff:a9fe:a9fe", "IPv4 in IPv6"),
    ("::ffff:0:127.0.0.1", "IPv4 in IPv6"),
    ("64:ff9b::7f00:1", "NAT64"),
    ("64:ff9b::808:808", "NAT64"),
    ("64:ff9b:1::1", "NAT64"),
    ("100::1", "reserved"),
    ("2001::1", "Teredo"),
    ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo"),
    ("2001:2::1", "benchmarks"),
    ("2001:10::1", "reserved"),
    ("2001:db8::1", "documentation"),
    ("2002:7f00:1::", "6to4"),
    ("2002:808:808::1", "6to4"),
    ("3fff::1", "documentation"),
    ("4000::1", "reserved"),
    ("5f00::1", "reserved"),
    ("8000::1", "reserved"),
    ("fc00::1", "private"),
    ("fd12:3456::1", "private"),
    ("fd00:ec2::254", "metadata"),
    ("fe80::1", "link-local"),
    ("fe80::1%eth0", "zone"),
    ("2606:4700::1111%1", "zone"),
    ("fec0::1", "site-local"),
    ("ff02::1", "multicast"),
]


@at_once("address, reason", ADDRESSES)
def test_an_address_that_is_not_public_is_refused(address: str, reason: str) -> None:
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(UrlRefused, match=reason):
        fetch(f"http://{host}/")


@at_once("address, reason", ADDRESSES)
def test_a_name_that_leads_to_such_an_address_is_refused(address: str, reason: str) -> None:
    with pytest.raises(UrlRefused, match=reason):
        fetch("https://pictures.example/", resolve=Names([address]))


@at_once(
    "address",
    [
        "1.1.1.1",
        "8.8.8.8",
        "11.0.0.1",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.0.1",
        "172.32.0.1",
        "192.0.1.1",
        "192.167.1.1",
        "198.17.0.1",
        "198.20.0.1",
        "223.255.255.255",
        PUBLIC,
        "2001:4860:4860::8888",
        "2003::1",
        "2606:4700:4700::1111",
        "2a00:1450::1",
        "3ffe::1",
    ],
)
def test_a_public_address_is_not_refused(address: str) -> None:
    assert refusal(ip_address(address)) is None


@at_once(
    "address",
    [
        "169.254.169.254",
        "169.254.1.1",
        "100.100.100.200",
        "fd00:ec2::254",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "255.255.255.255",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001::1",
        "fe80::1",
        "fec0::1",
        "240.0.0.1",
    ],
)
def test_allow_private_opens_no_more_than_private_networks(address: str) -> None:
    assert refusal(ip_address(address), allow_private=True) is not None


@at_once("address", ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.9", "fd12::1"])
def test_allow_private_opens_private_networks(address: str) -> None:
    assert refusal(ip_address(address), allow_private=True) is None


TRICKS = [
    ("http://2130706433/", "the host"),
    ("http://0x7f000001/", "the host"),
    ("http://0x7f.1/", "the host"),
    ("http://127.1/", "the host"),
    ("http://127.0.1/", "the host"),
    ("http://0177.1/", "the host"),
    ("http://0177.0.0.1/", "Invalid IPv4"),
    ("http://127.0.0.0x1/", "the host"),
    ("http://0x/", "the host"),
    ("http://1.2.3.4.5/", "the host"),
    ("http://256.1.1.1/", "Invalid IPv4"),
    ("http://127.0.0.1./", "the host"),
    ("http://localhost/", "loopback"),
    ("http://LOCALHOST:8080/", "loopback"),
    ("http://localhost./", "the host"),
    ("http://example.com./", "the host"),
    ("http://example..com/", "the host"),
    ("http://.example.com/", "the host"),
    (f"http://{'a' * 64}.example/", "the host"),
    (f"http://{'a.' * 127}example/", "the host"),
    ("http://127。0。0。1/", "loopback"),
    ("http://①②⑦.⓪.⓪.①/", "Invalid IDNA"),
    ("http://１２７.0.0.1/", "Invalid IDNA"),
    ("http://１２７．０．０．１/", "Invalid IDNA"),
    ("http://%31%32%37.0.0.1/", "the host"),
    ("http://127.0.0.1%2f.example.com/", "the host"),
    ("http://exam ple.com/", "the host"),
    ("http://[::ffff:7f00:1]/", "IPv4 in IPv6"),
    ("http://[fe80::1%25eth0]/", "zone"),
    ("http://[::1/", "cannot be read"),
    ("http://[v1.fe80]/", "cannot be read"),
    ("http://user:password@example.com/", "user or password"),
    ("http://user@example.com/", "user or password"),
    ("http://example.com\\@127.0.0.1/", "user or password"),
    ("http://example.com@127.0.0.1/", "user or password"),
    ("http://example.com:0/", "the port 0"),
    ("http://example.com:65536/", "the port 65536"),
    ("http://example.com:-1/", "the port -1"),
    ("http://example.com:80:80/", "cannot be read"),
    ("http:///etc/passwd", "the host ''"),
    ("//example.com/", "the scheme ''"),
    ("example.com/a.png", "the scheme ''"),
    ("", "the scheme ''"),
    ("file:///etc/passwd", "the scheme 'file'"),
    ("ftp://example.com/a.png", "the scheme 'ftp'"),
    ("gopher://127.0.0.1:6379/_FLUSHALL", "the scheme 'gopher'"),
    ("data:image/png;base64,AAAA", "the scheme 'data'"),
    ("javascript:alert(1)", "the scheme 'javascript'"),
    ("ws://example.com/", "the scheme 'ws'"),
    ("http://example.com/\r\nHost: other", "control"),
    ("http://example.com/\0", "control"),
    ("http://example.com/\u2028", "control"),
    ("http://example.com/\ud800", "control"),
    (f"http://example.com/{'a' * 2_048}", "2067 characters"),
]


@at_once("url, reason", TRICKS)
def test_a_url_that_plays_a_trick_is_refused(url: str, reason: str) -> None:
    with pytest.raises(UrlRefused, match=reason):
        fetch(url)
    with pytest.raises(UrlRefused, match=reason):
        post(url, b"", {}, timeout_s=60)


@at_once(
    "url",
    [
        "https://example.com/a.png?x=1#top",
        "http://Example.COM:8080/",
        "http://bücher.example/ä",
        "https://xn--bcher-kva.example/",
        "http://a_b.example/",
        "http://8.8.8.8/",
        "http://[2003::1]/",
        "http://3com.example/",
        "http://1.2.3.4.example/",
    ],
)
def test_an_ordinary_url_passes_the_check(url: str) -> None:
    assert net.check_url(url).scheme in ("http", "https")


def test_a_message_does_not_repeat_a_password() -> None:
    with pytest.raises(UrlRefused) as caught:
        net.check_url("https://me:hunter2@example.com/")
    assert "hunter2" not in str(caught.value)


def test_a_picture_is_fetched(site: Site) -> None:
    assert fetch(site.url(), allow_private=True) == b"a picture"
    [(path, headers, _)] = site.seen
    assert path == "/"
    assert headers["Accept-Encoding"] == "identity"
    assert headers["Host"] == f"127.0.0.1:{site.port}"


def test_an_ipv6_address_is_fetched_from_and_named_in_brackets() -> None:
    with socket.socket(socket.AF_INET6) as probe:
        need(probe.connect_ex(("::1", 9)) != errno.EADDRNOTAVAIL, "IPv6 on loopback")
    with Site("::1") as site:
        assert fetch(site.url(host="[::1]"), allow_private=True) == b"a picture"
        assert site.seen[0][1]["Host"] == f"[::1]:{site.port}"


def test_a_loopback_server_is_not_reached_by_default(site: Site) -> None:
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(UrlRefused, match="loopback"):
            fetch(site.url(host=host))
    assert site.seen == []


def test_a_name_is_sent_as_the_host_and_its_address_connected_to(site: Site) -> None:
    names = Names(["127.0.0.1"])
    url = site.url("/", "pictures.example")
    assert fetch(url, resolve=names, _refusal=only_this_machine) == b"a picture"
    assert names.asked == [("pictures.example", site.port)]
    assert site.seen[0][1]["Host"] == f"pictures.example:{site.port}"


def test_an_answer_that_changes_after_the_check_leads_nowhere(site: Site) -> None:
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    with Site("127.0.0.2", site.port) as secret:
        secret.routes["/"] = lambda to: to.answer(200, b"a secret")
        url = site.url("/", "rebinding.example")
        assert fetch(url, resolve=names, _refusal=only_this_machine) == b"a picture"
        assert len(names.asked) == 1
        with pytest.raises(UrlRefused, match="loopback"):
            fetch(url, resolve=names, _refusal=only_this_machine)
        assert len(names.asked) == 2
        assert secret.seen == []


def test_an_answer_that_changes_between_redirects_is_checked_again(site: Site) -> None:
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    site.routes["/"] = lambda to: to.answer(302, Location="/again")
    with Site("127.0.0.2", site.port) as secret, pytest.raises(UrlRefused, match="loopback"):
        fetch(site.url("/", "rebinding.example"), resolve=names, _refusal=only_this_machine)
    assert len(names.asked) == 2
    assert [path for path, *_ in site.seen] == ["/"]
    assert secret.seen == []


@at_once("answer", [["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"]])
def test_one_private_address_among_public_ones_refuses_them_all(
    site: Site, answer: list[str]
) -> None:
    with pytest.raises(UrlRefused, match="private"):
        fetch(site.url("/", "mixed.example"), resolve=Names(answer), _refusal=only_this_machine)
    assert site.seen == []


def test_the_next_address_is_tried_when_one_does_not_answer(site: Site) -> None:
    names = Names(["127.0.0.9", "127.0.0.1"])  # nobody listens at the first
    assert fetch(site.url("/", "two.example"), allow_private=True, resolve=names) == b"a picture"


def test_the_message_does_not_tell_where_a_name_leads() -> None:
    with pytest.raises(UrlRefused) as caught:
        fetch("http://inside.example/", resolve=Names(["10.1.2.3"]))
    assert "10.1.2.3" not in str(caught.value)


def test_a_name_without_an_address_is_said() -> None:
    with pytest.raises(FetchFailed, match="has no address"):
        fetch("http://nothing.example/", resolve=Names([]))


def test_a_name_that_does_not_resolve_is_said() -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(FetchFailed, match="cannot be resolved"):
        fetch("http://nothing.example/", resolve=unknown)


def test_a_lookup_counts_as_time() -> None:
    over = threading.Event()

    def slow(host: str, port: int) -> list[str]:
        over.wait(60)
        return [PUBLIC]

    started = time.monotonic()
    with pytest.raises(FetchFailed, match=r"within 0\.3 s"):
        fetch("http://slow.example/", 0.3, resolve=slow)
    with pytest.raises(FetchFailed, match=r"within 0\.3 s"):
        post("http://slow.example/", b"", {}, timeout_s=0.3, resolve=slow)
    assert time.monotonic() - started < 5
    over.set()


@at_once(
    "location, reason",
    [
        ("http://10.0.0.1/", "private"),
        ("//169.254.169.254/latest/meta-data/", "metadata"),
        ("http://127.0.0.2/", "loopback"),
        ("http://[::1]/", "loopback"),
        ("http://2130706433/", "the host"),
        ("http://me:secret@example.com/", "user or password"),
        ("file:///etc/passwd", "the scheme 'file'"),
        ("gopher://127.0.0.1:6379/", "the scheme 'gopher'"),
        ("http://[::1", "is not allowed"),
        ("/" + "a" * 2_048, "characters"),
    ],
)
def test_a_redirect_to_what_is_not_allowed_is_refused(
    site: Site, location: str, reason: str
) -> None:
    site.seen.clear()
    site.routes["/"] = lambda to: to.answer(302, Location=location)
    with pytest.raises(UrlRefused, match=reason):
        fetch(site.url(), _refusal=only_this_machine)
    assert len(site.seen) == 1


@at_once("status", net.REDIRECTS)
def test_a_redirect_is_followed(site: Site, status: int) -> None:
    site.routes["/moved"] = lambda to: to.answer(status, Location="/")
    assert fetch(site.url("/moved"), _refusal=only_this_machine) == b"a picture"


def test_three_redirects_are_followed_and_a_fourth_is_not(site: Site) -> None:
    def count_down(to: Handler) -> None:
        to.answer(302, Location=f"/{int(to.path[1:]) - 1}")

    site.routes |= {"/0": site.routes["/"], **{f"/{n}": count_down for n in range(1, 5)}}
    assert fetch(site.url("/3"), allow_private=True) == b"a picture"
    with pytest.raises(UrlRefused, match="more than 3 times"):
        fetch(site.url("/4"), allow_private=True)


def test_a_redirect_to_nowhere_fails(site: Site) -> None:
    site.routes["/"] = lambda to: to.answer(302)
    with pytest.raises(FetchFailed, match="without a Location"):
        fetch(site.url(), allow_private=True)


@at_once("status", [201, 204, 304, 403, 404, 500])
def test_another_status_fails(site: Site, status: int) -> None:
    site.routes["/"] = lambda to: to.answer(status)
    with pytest.raises(FetchFailed, match=f"status {status}") as caught:
        fetch(site.url(), allow_private=True)
    assert caught.value.retryable


def test_a_body_of_just_the_limit_is_fetched(site: Site) -> None:
    site.routes["/"] = lambda to: to.answer(200, bytes(LIMIT))
    assert len(fetch(site.url(), allow_private=True)) == LIMIT


def test_a_body_that_says_it_is_too_large_is_not_read(site: Site) -> None:
    def say_only(to: Handler) -> None:
        to.send_response(200)
        to.send_header("Content-Length", str(LIMIT + 1))
        to.end_headers()
        to.server.stopped.wait(60)  # no byte of it is ever sent

    site.routes["/"] = say_only
    with pytest.raises(ImageTooLarge, match=f"more than the {LIMIT} bytes"):
        fetch(site.url(), allow_private=True)


def stream(to: Handler, chunk: bytes, pause_s: float = 0.0) -> None:
    """Send chunks without saying how many, until the client has gone or the test is over."""
    to.send_response(200)
    to.send_header("Transfer-Encoding", "chunked")
    to.end_headers()
    while not to.server.stopped.wait(pause_s):
        to.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))


def test_a_stream_without_a_length_is_cut_at_the_limit(site: Site) -> None:
    site.routes["/"] = lambda to: stream(to, bytes(1_000))
    with pytest.raises(ImageTooLarge):
        fetch(site.url(), allow_private=True)


def test_a_body_that_comes_drop_by_drop_is_ended_by_the_time_for_all_of_it(site: Site) -> None:
    site.routes["/"] = lambda to: stream(to, b".", pause_s=0.02)
    started = time.monotonic()
    with pytest.raises(FetchFailed, match=r"within 0\.2 s"):
        fetch(site.url(), 0.2, allow_private=True)
    assert time.monotonic() - started < 5


def test_a_head_that_comes_drop_by_drop_is_ended_too(site: Site) -> None:
    def drip(to: Handler) -> None:
        to.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not to.server.stopped.wait(0.02):
            to.wfile.write(b"X-More: yes\r\n")

    site.routes["/"] = drip
    with pytest.raises(FetchFailed, match=r"within 0\.2 s"):
        fetch(site.url(), 0.2, allow_private=True)
    with pytest.raises(FetchFailed, match=r"within 0\.2 s"):
        post(site.url(), b"", {}, timeout_s=0.2, allow_private=True)


def test_redirects_share_the_time(site: Site) -> None:
    def slow(to: Handler) -> None:
        to.server.stopped.wait(0.2)
        to.answer(302, Location="/")

    site.routes["/"] = slow
    with pytest.raises(FetchFailed, match=r"within 0\.5 s"):
        fetch(site.url(), 0.5, allow_private=True)


def test_a_head_without_an_end_is_cut(site: Site) -> None:
    def endless(to: Handler) -> None:
        to.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not to.server.stopped.is_set():
            to.wfile.write(b"x" * 10_000)

    site.routes["/"] = endless
    with pytest.raises(FetchFailed) as caught:
        fetch(site.url(), allow_private=True)
    assert len(str(caught.value)) < 300


@at_once("encoding", ["gzip", "br", "identity, gzip"])
def test_a_compressed_answer_is_refused_before_it_is_unpacked(site: Site, encoding: str) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < LIMIT
    site.routes["/"] = lambda to: to.answer(200, bomb, Content_Encoding=encoding)
    with pytest.raises(FetchFailed, match="content encoding"):
        fetch(site.url(), allow_private=True)


def test_a_compressed_transfer_is_refused(site: Site) -> None:
    def squeeze(to: Handler) -> None:
        to.send_response(200)
        to.send_header("Transfer-Encoding", "gzip, chunked")
        to.end_headers()

    site.routes["/"] = squeeze
    with pytest.raises(FetchFailed, match="did not answer in HTTP"):
        fetch(site.url(), allow_private=True)


def test_a_body_that_ends_too_soon_fails(site: Site) -> None:
    def hang_up(to: Handler) -> None:
        to.send_response(200)
        to.send_header("Content-Length", "100")
        to.end_headers()
        to.wfile.write(b"half")
        to.close_connection = True

    site.routes["/"] = hang_up
    with pytest.raises(FetchFailed, match="did not answer in HTTP"):
        fetch(site.url(), allow_private=True)


def test_what_does_not_speak_http_fails(site: Site) -> None:
    site.routes["/"] = lambda to: to.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
    with pytest.raises(FetchFailed, match="did not answer in HTTP"):
        fetch(site.url(), allow_private=True)


def test_a_closed_port_fails() -> None:
    with Site() as gone:
        pass
    with pytest.raises(FetchFailed, match="failed"):
        fetch(gone.url(), allow_private=True)


def test_proxies_of_the_environment_are_not_used(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Site() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url())
        monkeypatch.setenv("NO_PROXY", "")
        assert fetch(site.url(), allow_private=True) == b"a picture"
        assert post(site.url(), b"", {}, timeout_s=60, allow_private=True) == 200
    assert proxy.seen == []


def test_a_post_sends_its_body_and_headers_and_returns_the_status(site: Site) -> None:
    site.routes["/hook"] = lambda to: to.answer(202)
    status = post(
        site.url("/hook"), b'{"id": 1}', {"Webhook-Id": "m1"}, timeout_s=60, allow_private=True
    )
    assert status == 202
    [(path, headers, body)] = site.seen
    assert (path, headers["Webhook-Id"], body) == ("/hook", "m1", b'{"id": 1}')


@at_once("status", [302, 307, 308, 410, 500])
def test_a_post_returns_whatever_status_and_follows_no_redirect(site: Site, status: int) -> None:
    site.seen.clear()
    site.routes["/hook"] = lambda to: to.answer(status, Location="/")
    assert post(site.url("/hook"), b"", {}, timeout_s=60, allow_private=True) == status
    assert [path for path, *_ in site.seen] == ["/hook"]


def test_a_post_does_not_wait_for_the_body_of_the_answer(site: Site) -> None:
    site.routes["/"] = lambda to: stream(to, b"x" * 1_000, pause_s=0.01)
    assert post(site.url(), b"", {}, timeout_s=60, allow_private=True) == 200


def test_a_post_is_held_to_the_same_rules(site: Site) -> None:
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    options: dict[str, Any] = {"resolve": names, "_refusal": only_this_machine, "timeout_s": 10}
    assert post(site.url("/", "hook.example"), b"", {}, **options) == 200
    with pytest.raises(UrlRefused, match="loopback"):
        post(site.url("/", "hook.example"), b"", {}, **options)
    assert len(names.asked) == 2


@pytest.mark.parametrize(("size", "connections"), [(0, 1), (100, 1), (100_000, 3)])
def test_a_connection_serves_again_after_a_short_answer(
    site: Site, size: int, connections: int
) -> None:
    site.routes["/"] = lambda to: to.answer(200, b"x" * size)
    poster = net.Poster(timeout_s=60, allow_private=True)

    async def thrice() -> list[int]:
        try:
            return [await poster.post(site.url(), b"", {}) for _ in range(3)]
        finally:
            await poster.close()

    assert asyncio.run(thrice()) == [200] * 3
    assert site.connections == connections


def test_a_connection_that_is_kept_serves_no_other_host(site: Site) -> None:
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    poster = net.Poster(timeout_s=60, resolve=names, _refusal=only_this_machine)

    async def both() -> None:
        try:
            await poster.post(site.url("/", "hook.example"), b"", {})
            with pytest.raises(UrlRefused, match="loopback"):
                await poster.post(site.url("/", "other.example"), b"", {})
        finally:
            await poster.close()

    asyncio.run(both())


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for pictures.example, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pictures.example")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("pictures.example")]), False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def asked_names() -> list[str | None]:
    """What clients of `secure_site` said whom they wanted to speak with."""
    return []


@pytest.fixture
def secure_site(certificate: Path, asked_names: list[str | None]) -> Iterator[Site]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    tls.sni_callback = lambda _socket, name, _context: asked_names.append(name)
    with Site() as site:
        site.socket = tls.wrap_socket(site.socket, server_side=True)
        yield site


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    net._tls.cache_clear()
    yield
    net._tls.cache_clear()


def test_a_certificate_that_nobody_trusted_signed_is_refused(secure_site: Site) -> None:
    url = secure_site.url("/", "pictures.example", "https")
    with pytest.raises(FetchFailed, match="certificate verify failed"):
        fetch(url, allow_private=True, resolve=Names(["127.0.0.1"]))
    with pytest.raises(FetchFailed, match="certificate verify failed"):
        post(url, b"", {}, timeout_s=60, allow_private=True, resolve=Names(["127.0.0.1"]))
    assert secure_site.seen == []


@pytest.mark.usefixtures("trusted")
def test_the_name_and_not_the_address_is_what_tls_asks_for(
    secure_site: Site, asked_names: list[str | None]
) -> None:
    url = secure_site.url("/", "pictures.example", "https")
    assert fetch(url, allow_private=True, resolve=Names(["127.0.0.1"])) == b"a picture"
    assert asked_names == ["pictures.example"]


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("host", ["other.example", "127.0.0.1"])
def test_a_certificate_of_another_name_is_refused(secure_site: Site, host: str) -> None:
    with pytest.raises(FetchFailed, match="certificate verify failed"):
        fetch(secure_site.url("/", host, "https"), allow_private=True, resolve=Names(["127.0.0.1"]))
    assert secure_site.seen == []


@pytest.mark.usefixtures("trusted")
def test_a_redirect_from_https_to_http_is_refused(site: Site, secure_site: Site) -> None:
    secure_site.routes["/"] = lambda to: to.answer(301, Location=site.url())
    url = secure_site.url("/", "pictures.example", "https")
    with pytest.raises(UrlRefused, match="from https to http"):
        fetch(url, allow_private=True, resolve=Names(["127.0.0.1"]))
    assert site.seen == []


@pytest.mark.usefixtures("trusted")
def test_a_redirect_from_http_to_https_is_followed(site: Site, secure_site: Site) -> None:
    target = secure_site.url("/", "pictures.example", "https")
    site.routes["/"] = lambda to: to.answer(301, Location=target)
    assert fetch(site.url(), allow_private=True, resolve=Names(["127.0.0.1"])) == b"a picture"


@pytest.mark.parametrize(("address", "opens"), [("127.0.0.1", True), ("169.254.169.254", False)])
def test_the_setting_is_named_that_would_open_an_address(address: str, opens: bool) -> None:
    with pytest.raises(UrlRefused) as caught:
        post("http://a.example/", b"", {}, timeout_s=5, resolve=lambda host, port: [address])
    assert (ALLOWED in str(caught.value)) == opens
