"""What a caller of the gateway may not do: smuggle, hold on, or upload other bytes than named."""

import hashlib
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from crossmodal.errors import BlobDamaged, ImageTooLarge
from crossmodal.jobs.names import input_key
from crossmodal.kinds.fields import BlobRef
from crossmodal.storage import Storage
from producer import Client
from tests.at_once import at_once
from tests.conftest import RunningStack
from tests.gateway import Gateway, running_gateway
from tests.waiting import until
from tests.workers import suspended

WAIT_S = 60
ORIGIN = "https://page.example"
PREFLIGHT = f"Origin: {ORIGIN}\r\nAccess-Control-Request-Method: POST\r\n".encode()
DRAW = {"task": "txt2img", "prompt": "a red circle"}


@pytest.fixture(scope="module")
def gateway(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Client(stack.settings) as client:
        client.keys.create("the first")
    env = {**stack.env, "CROSSMODAL_CORS_ORIGINS": ORIGIN}
    with running_gateway(env, tmp_path_factory.mktemp("attacked"), "--keys") as gateway:
        yield gateway


def raw(gateway: Gateway, request: bytes) -> bytes:
    """Return all that is answered until the connection is closed, or nothing comes for 10 s."""
    there = urlsplit(gateway.url)
    answered = b""
    with socket.create_connection((str(there.hostname), there.port or 80), 10) as caller:
        caller.sendall(request)
        try:
            while piece := caller.recv(65_536):
                answered += piece
        except TimeoutError:
            return answered + b"(open)"
    return answered


@at_once("length", [b"5", b"0", b"100"])
@pytest.mark.parametrize(
    "begin",
    [b"POST /v1/jobs HTTP/1.1\r\n", b"OPTIONS /v1/jobs HTTP/1.1\r\n" + PREFLIGHT],
    ids=["job", "preflight"],
)
def test_a_request_of_two_lengths_ends_its_connection(
    gateway: Gateway, begin: bytes, length: bytes
) -> None:
    second = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answered = raw(
        gateway,
        begin
        + b"Host: localhost\r\nContent-Length: "
        + length
        + b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        + second,
    )
    assert answered.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answered.lower()
    assert not answered.endswith(b"(open)")


@at_once(
    "key",
    [
        "results/" + "k" * 256,
        "results/" + "k" * 256 + "/0.png",
        "k" * 300,
        "é" * 128,
        "results/" + "/".join("k" * 200 for _ in range(30)),
    ],
)
def test_a_key_that_no_file_can_have_is_not_found(
    gateway: Gateway, client: Client, key: str
) -> None:
    _, token = client.keys.create("one", is_operator=True)
    with gateway.as_key(token) as http:
        reply = http.get(f"/v1/blobs/{quote(key)}")
    assert (reply.status_code, reply.json()["code"]) == (404, "blob_not_found")


@pytest.mark.parametrize("route", ["/v1/jobs/{}/events", "/v1/events"])
def test_an_open_stream_ends_when_its_key_is_revoked(
    gateway: Gateway, client: Client, stack: RunningStack, route: str
) -> None:
    key, token = client.keys.create("short-lived")
    opened, ended = threading.Event(), threading.Event()
    with gateway.as_key(token) as http, suspended(stack.model_host):
        job = http.post("/v1/jobs", json=DRAW).json()["id"]

        def listen() -> None:
            with http.stream("GET", route.format(job), timeout=WAIT_S) as answer:
                for _ in answer.iter_raw():
                    opened.set()
            ended.set()

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        assert opened.wait(WAIT_S)
        assert not ended.is_set()
        client.keys.revoke(key.id)
        assert ended.wait(WAIT_S)
        listener.join()
        assert http.get(route.format(job)).status_code == 401
    until(lambda: client.status(job).state.is_terminal, WAIT_S, "the end of the job")


def test_bytes_that_were_put_under_the_name_of_others_are_not_read(s3_url: str) -> None:
    store, data = Storage(s3_url), b"what it was said to be"
    key = input_key(hashlib.sha256(data).hexdigest(), "an-owner")
    url = store.sign(key, 60, "PUT")
    assert url is not None
    for sent in (b"other bytes", data):
        binary = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(url, sent, binary, method="PUT")
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200
        if sent == data:
            assert store.get(BlobRef(key=key)) == data
            continue
        with pytest.raises(BlobDamaged):
            store.get(BlobRef(key=key))
        with pytest.raises(ImageTooLarge):
            store.get(BlobRef(key=key), max_bytes=5)


def test_a_folder_checks_names_of_content_as_well(tmp_path: Path) -> None:
    store = Storage(tmp_path.as_uri())
    key = input_key(hashlib.sha256(b"a").hexdigest())
    store.put(key, b"b", "image/png")
    with pytest.raises(BlobDamaged):
        store.get(BlobRef(key=key))
