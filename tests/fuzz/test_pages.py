"""The files of the page and the documentation: whatever the path, no others are served."""

import random
import string
from contextlib import closing
from http.client import HTTPConnection

from producer.gateway.app import PAGE
from tests.fuzz import made_up
from tests.fuzz.conftest import Fuzzed
from tests.fuzz.made_up import TEXTS, header
from tests.fuzz.tenants import Asked, Turns, leaks

CASES = 20  # times `Fuzzed.each`
HEADERS = (
    "Range",
    "If-None-Match",
    "If-Modified-Since",
    "Accept",
    "Accept-Encoding",
    "Origin",
    "If-Range",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
)
METHODS = ("GET",) * 6 + ("HEAD", "POST", "PUT", "OPTIONS", "DELETE")
ROOTS = ("/", "/page/", "/docs", "/docs/", "/docs/assets/", "/page/../", "/page//")


def test_nothing_but_its_files_is_given_out(fuzzed: Fuzzed) -> None:
    rng, turns, cases = random.Random(6), Turns(fuzzed.tenants), CASES * fuzzed.each
    files = {path.name: path.read_bytes() for path in PAGE.iterdir()}
    pages = {*files.values(), _asked(fuzzed, "GET", "/", {}).body}
    for _ in range(cases):
        tenant = turns.next()
        path, method = _path(rng, list(files)), rng.choice(METHODS)
        headers = {rng.choice(HEADERS): header(rng, list(files)) for _ in range(2)}
        asked = _asked(fuzzed, method, path, headers)
        assert asked.status < 500, (method, path, headers, asked)
        assert not leaks(asked, tenant) + leaks(asked, turns.other(tenant)), asked
        if asked.status == 200 and method == "GET" and not path.startswith("/docs/assets"):
            assert asked.body in pages, (path, asked)
    fuzzed.note("pages", cases)


def _asked(fuzzed: Fuzzed, method: str, path: str, headers: dict[str, str]) -> Asked:
    """Request a path as it is: other clients turn `/page/../` into `/`."""
    port = int(fuzzed.gateway.url.rpartition(":")[2])
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return Asked(path, answer.status, dict(answer.getheaders()), answer.read())


def _path(rng: random.Random, files: list[str]) -> str:
    parts = [*files, *TEXTS, *string.punctuation]
    rest = "/".join(rng.choice(parts) for _ in range(rng.randrange(3)))
    whole = rng.choice(ROOTS) + rng.choice([rng.choice(files), rest])
    return made_up.path(whole)
