"""What HTTP asks of any server, whatever it serves: of a gateway that listens, with no worker."""

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import httpx2
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from crossmodal.settings import Settings, load_settings
from producer.http.manners import METHODS
from tests.gateway import in_thread, running_gateway

DRAW = {"task": "txt2img", "prompt": "a red circle"}
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4
HIDDEN = ("/", "/docs", "/openapi.json", "/page/page.js", "/docs/assets/swagger-ui.css")
START_S = 30.0


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx2.Client]:
    with (
        in_thread(settings, needs_keys=False) as url,
        httpx2.Client(base_url=url, timeout=START_S) as http,
    ):
        yield http


@pytest.fixture
def blob(http: httpx2.Client) -> str:
    """The path of a picture that was uploaded."""
    sent = http.post("/v1/uploads", content=PICTURE, headers={"Content-Type": "image/png"})
    return str(httpx2.URL(sent.json()["url"]).path)


def test_every_get_has_its_head(http: httpx2.Client, blob: str) -> None:
    """With the same status and headers, and no body; also of streams, which have no end."""
    job = http.post("/v1/jobs", json=DRAW).json()["id"]
    document = http.get("/openapi.json").json()
    paths = [path for path, methods in document["paths"].items() if "get" in methods]
    filled = [path.replace("{job_id}", job).replace("{key}", blob[10:]) for path in paths]
    assert len(filled) > 25
    for path in [*filled, *HIDDEN]:
        head = http.head(path)
        with http.stream("GET", path) as got:
            assert head.status_code == got.status_code, path
            assert head.headers["content-type"] == got.headers["content-type"], path
        assert head.content == b"", path
    for headers in ({}, {"Range": "bytes=0-9"}):  # which is for GET alone
        head = http.head(blob, headers=headers)
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(PICTURE)))


def test_a_connection_goes_on_after_a_head(http: httpx2.Client) -> None:
    """Whatever a stream would have sent must not be taken for the next answer."""
    head = b"HEAD /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
    get = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", http.base_url.port or 0), START_S) as wire:
        wire.sendall(head)
        answers = wire.recv(65_536)
        wire.sendall(get)
        while more := wire.recv(65_536):
            answers += more
    first, second = answers.split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"200")
    assert first.endswith(b"\r\n\r\n")
    assert second.startswith(b"200")
    assert second.endswith(b"\r\n\r\nok\n")


def test_whatever_refuses_a_method_says_which_are_allowed(http: httpx2.Client) -> None:
    document = http.get("/openapi.json").json()
    for path, methods in {**document["paths"], **{path: {"get": 0} for path in HIDDEN}}.items():
        reply = http.request("BREW", path)
        assert reply.status_code == 405, path
        allowed = set(reply.headers["allow"].split(", "))
        assert allowed >= {method.upper() for method in methods}, path
        assert ("HEAD" in allowed) is ("GET" in allowed), path
        assert allowed <= set(METHODS), path
    assert http.put("/v1/jobs").headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [("/v1/jobs/?limit=1", "/v1/jobs?limit=1"), ("/livez/", "/livez"), ("/page", "/page/")],
)
@pytest.mark.parametrize("base", ["https://pictures.example", "https://a.example/under/crossmodal"])
def test_a_slash_too_many_leads_to_where_the_caller_is(
    path: str, leads_to: str, base: str, http: httpx2.Client
) -> None:
    """Behind a proxy that knows another name and path, which the gateway is not told of."""
    reply = http.get(path, headers={"Host": "localhost:1"})
    assert reply.status_code == 307
    assert urljoin(base + path, reply.headers["location"]) == base + leads_to


def test_the_openapi_document_is_one(http: httpx2.Client) -> None:
    document = http.get("/openapi.json").json()
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
    streams = document["paths"]["/v1/jobs/{job_id}/events"]["get"]["responses"]["200"]["content"]
    assert "data" in streams["text/event-stream"]["schema"]["properties"]


def test_a_form_is_described_with_all_that_it_may_have(http: httpx2.Client, blob: str) -> None:
    """As a picture that is stored already, or a job without one."""
    document = http.get("/openapi.json").json()
    body = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]
    form = body["multipart/form-data"]["schema"]["properties"].keys()
    for schema in body["application/json"]["schema"]["discriminator"]["mapping"].values():
        asked = document["components"]["schemas"][schema.rpartition("/")[2]]["properties"].keys()
        assert form >= asked | {"file"}
    stored = {"task": "img2txt", "image": f'{{"key": "{blob[10:]}"}}', "priority": "1"}
    for fields in (stored, DRAW | {"keep_s": "60"}):
        reply = http.post("/v1/jobs", files={name: (None, value) for name, value in fields.items()})
        assert reply.status_code == 202, reply.text


def test_a_range_is_of_what_its_asker_has(http: httpx2.Client, blob: str) -> None:
    """Else all of it is sent: half of it and half of another would be neither."""
    tag = http.get(blob).headers["etag"]
    part = {"Range": "bytes=2-5"}
    assert http.get(blob, headers=part | {"If-Range": tag}).content == PICTURE[2:6]
    for other in ('"another"', f"W/{tag}", "Wed, 21 Oct 2015 07:28:00 GMT"):
        whole = http.get(blob, headers=part | {"If-Range": other})
        assert (whole.status_code, whole.content) == (200, PICTURE)
    beyond = http.get(blob, headers={"Range": "bytes=9999-", "If-Range": '"another"'})
    assert beyond.status_code == 200


def test_idle_connections_are_kept_for_as_long_as_is_set(
    settings: Settings, tmp_path: Path
) -> None:
    assert load_settings().keep_alive_s == 75  # longer than proxies keep theirs, by default 60
    env = {
        "CELERY_BROKER_URL": settings.broker_url.get_secret_value(),
        "CROSSMODAL_KEY_PREFIX": settings.key_prefix,
        "CROSSMODAL_STORAGE_URL": settings.storage_url,
        "CROSSMODAL_KEEP_ALIVE_S": "1",
    }
    with running_gateway(env, tmp_path) as gateway:
        port = int(gateway.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), START_S) as wire:
            wire.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while more := wire.recv(65_536):
                answer += more
    assert answer.endswith(b"ok\n")
