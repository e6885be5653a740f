"""The gateway over a store that signs URLs: bytes go to and from the store itself."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from crossmodal.storage import Storage
from tests.conftest import RunningStack
from tests.gateway import Gateway, running_gateway

PICTURE = b"\x89PNG\r\n\x1a\n" + b"not much of a picture" * 20


@pytest.fixture
def gateway(stack: RunningStack, s3_url: str, tmp_path: Path) -> Iterator[Gateway]:
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    env = stack.env | aws | {"CROSSMODAL_STORAGE_URL": s3_url}
    with running_gateway(env, tmp_path) as gateway:
        yield gateway


def test_a_blob_is_a_redirect_to_where_the_store_gives_it_out(gateway: Gateway) -> None:
    kind = {"Content-Type": "image/png"}
    upload = gateway.http.post("/v1/uploads", content=PICTURE, headers=kind).json()
    reply = gateway.http.get(upload["url"])
    assert reply.status_code == 307
    assert reply.headers["cache-control"] == "no-store"
    assert httpx2.get(reply.headers["location"], timeout=30).content == PICTURE


def test_the_head_of_a_blob_is_that_of_where_it_leads(gateway: Gateway) -> None:
    """A URL is signed for one method: who follows with HEAD needs one for that."""
    kind = {"Content-Type": "image/png"}
    upload = gateway.http.post("/v1/uploads", content=PICTURE, headers=kind).json()
    reply = gateway.http.head(upload["url"])
    assert (reply.status_code, reply.content) == (307, b"")
    led = httpx2.head(reply.headers["location"], timeout=30)
    assert (led.status_code, led.headers["content-length"]) == (200, str(len(PICTURE)))


def test_the_bytes_come_from_the_gateway_for_who_asks_that(gateway: Gateway) -> None:
    kind = {"Content-Type": "image/png"}
    upload = gateway.http.post("/v1/uploads", content=PICTURE, headers=kind).json()
    reply = gateway.http.get(upload["url"], params={"redirect": "false"})
    assert (reply.status_code, reply.content) == (200, PICTURE)
    assert reply.headers["content-type"] == "image/png"


def test_a_picture_is_put_into_the_store_directly(gateway: Gateway, s3_url: str) -> None:
    digest = hashlib.sha256(PICTURE).hexdigest()
    signed = gateway.http.post("/v1/uploads", json={"sha256": digest}).json()
    assert httpx2.put(signed["put_url"], content=PICTURE, timeout=30).status_code == 200
    assert signed["key"].endswith(digest)
    found = Storage(s3_url).head(signed["key"])
    assert found is not None
    assert found.size == len(PICTURE)


def test_callers_who_cannot_reach_the_store_get_its_bytes_from_the_gateway(
    stack: RunningStack, s3_url: str, tmp_path: Path
) -> None:
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    here = {"CROSSMODAL_STORAGE_URL": s3_url, "CROSSMODAL_SIGNED_URLS": "false"}
    with running_gateway(stack.env | aws | here, tmp_path) as gateway:
        kind = {"Content-Type": "image/png"}
        upload = gateway.http.post("/v1/uploads", content=PICTURE, headers=kind).json()
        reply = gateway.http.get(upload["url"])
        refused = gateway.http.post("/v1/uploads", json={"sha256": "0" * 64})
    assert (reply.status_code, reply.content) == (200, PICTURE)
    assert (refused.status_code, refused.json()["code"]) == (409, "wrong_state")


def test_a_folder_signs_nothing_and_says_what_to_do(stack: RunningStack, tmp_path: Path) -> None:
    with running_gateway(stack.env, tmp_path) as gateway:
        reply = gateway.http.post("/v1/uploads", json={"sha256": "0" * 64})
    assert (reply.status_code, reply.json()["code"]) == (409, "wrong_state")
