"""What keeps one caller, or a store that hangs, from stopping the gateway for everybody else."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from fastapi import FastAPI

from crossmodal.errors import BrokerUnavailable, StorageUnavailable
from crossmodal.jobs import http_batches
from crossmodal.jobs.calls import Blocking, Steps, call
from crossmodal.jobs.names import RESULTS
from crossmodal.settings import Settings
from crossmodal.storage import Storage, StoredBlob
from producer import Client
from producer.gateway import readiness
from producer.gateway.app import make_app
from producer.gateway.intake import MOST_LINES
from producer.gateway.metrics import HTTP
from producer.gateway.services import STORE_THREADS, Services
from tests.exposition import value
from tests.gateway import calling, in_thread
from tests.waiting import until

PICTURE = b"\x89PNG\r\n\x1a\n" + b"not much of a picture" * 20
PNG = {"Content-Type": "image/png"}
LINE = b'{"custom_id": "a", "url": "/v1/txt2img", "body": {"prompt": "a red circle"}}\n'
JSONL = {"Content-Type": "application/jsonl"}


class SlowStorage(Storage):
    """Counts looks, and answers nothing before it is allowed to."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.may_answer = threading.Event()
        self.looks = 0

    def head(self, key: str) -> StoredBlob | None:
        self.looks += 1
        self.may_answer.wait(60)
        return super().head(key)

    def check(self) -> None:
        self.looks += 1
        self.may_answer.wait(60)


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return make_app(settings, needs_keys=False)


@pytest.fixture
def services(app: FastAPI) -> Services:
    found: Services = app.state.services
    return found


@pytest.fixture
def slow(services: Services) -> Iterator[SlowStorage]:
    """The store of the gateway, which hangs until the test has ended."""
    storage = SlowStorage(services.settings.storage_url)
    services.sync.calls.storage = storage
    yield storage
    storage.may_answer.set()


def test_a_store_that_hangs_holds_up_nobody_who_does_not_need_it(
    app: FastAPI, slow: SlowStorage
) -> None:
    async def scenario() -> int:
        async with calling(app) as http:
            key = (await http.post("/v1/uploads", content=PICTURE, headers=PNG)).json()["key"]
            stuck = [
                asyncio.create_task(http.get(f"/v1/blobs/{key}")) for _ in range(3 * STORE_THREADS)
            ]
            await asyncio.to_thread(until, lambda: slow.looks >= STORE_THREADS)
            reply = await asyncio.wait_for(http.get("/v1/jobs"), 20)
            slow.may_answer.set()
            await asyncio.gather(*stuck)
            return reply.status_code

    assert asyncio.run(scenario()) == 200


def test_a_blob_that_comes_slowly_holds_up_nobody_else(
    app: FastAPI, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_answer, begun = threading.Event(), []

    def stream(self: Storage, key: str, start: int, end: int) -> Iterator[bytes]:
        begun.append(key)
        may_answer.wait(60)
        yield PICTURE[start:end]

    async def scenario() -> int:
        async with calling(app) as http:
            key = (await http.post("/v1/uploads", content=PICTURE, headers=PNG)).json()["key"]
            monkeypatch.setattr(Storage, "stream", stream)
            monkeypatch.setattr("producer.gateway.routes.blobs._type_of", lambda *_: "image/png")
            stuck = [
                asyncio.create_task(http.get(f"/v1/blobs/{key}")) for _ in range(3 * STORE_THREADS)
            ]
            await asyncio.to_thread(until, lambda: len(begun) >= STORE_THREADS)
            reply = await asyncio.wait_for(http.get("/v1/jobs"), 20)
            may_answer.set()
            assert {reply.content for reply in await asyncio.gather(*stuck)} == {PICTURE}
            return reply.status_code

    try:
        assert asyncio.run(scenario()) == 200
    finally:
        may_answer.set()


def test_those_who_ask_whether_it_is_ready_share_one_look(
    app: FastAPI, slow: SlowStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "FRESH_S", 60.0)

    async def scenario() -> list[int]:
        async with calling(app) as http:
            asked = [asyncio.create_task(http.get("/readyz")) for _ in range(50)]
            await asyncio.to_thread(until, lambda: slow.looks > 0)
            slow.may_answer.set()
            replies = [*await asyncio.gather(*asked), await http.get("/readyz")]
            return [reply.status_code for reply in replies]

    assert asyncio.run(scenario()) == [200] * 51
    assert slow.looks == 1


def test_a_store_that_has_come_back_is_ready_again(
    app: FastAPI, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: Storage) -> None:
        raise StorageUnavailable("connection refused")

    async def scenario() -> list[int]:
        async with calling(app) as http:
            with monkeypatch.context() as patched:
                patched.setattr(Storage, "check", away)
                while_away = await http.get("/readyz")
            return [while_away.status_code, (await http.get("/readyz")).status_code]

    monkeypatch.setattr(readiness, "FRESH_S", 0.0)
    assert asyncio.run(scenario()) == [503, 200]


def test_a_batch_too_many_is_refused_and_leaves_nothing_in_the_store(
    app: FastAPI, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_batches, "MAX_UNFINISHED", 1)
    first, second = _posted(app, 2)
    assert (first.status_code, second.status_code) == (202, 429)
    assert second.json()["code"] == "too_many_queued"
    assert len(_inputs(services)) == 1


@pytest.mark.parametrize("method", ["open", "check_room"])
def test_a_batch_that_cannot_be_noted_leaves_nothing_in_the_store(
    app: FastAPI, services: Services, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def fail() -> None:
        raise BrokerUnavailable("connection refused")

    @call
    def away(*_: Any) -> Steps[None]:
        yield Blocking(fail)

    monkeypatch.setattr(services.batches, method, away)
    [refused] = _posted(app, 1)
    assert refused.status_code == 503
    assert _inputs(services) == []


def test_a_batch_that_was_kept_is_said_to_be_also_when_redis_is_away_just_then(
    app: FastAPI, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise BrokerUnavailable("connection refused")

    monkeypatch.setattr(services.client, "batch", away)
    [kept] = _posted(app, 1)
    assert kept.status_code == 202
    assert kept.json()["request_counts"] == {"total": 1, "completed": 0, "failed": 0}


@pytest.mark.parametrize("line", [b"\n", LINE, b'{"body": {"image": {"key": "results/x/y"}}}\n'])
def test_of_a_file_with_too_many_lines_none_is_looked_at(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, line: bytes
) -> None:
    def looked(*_: Any) -> None:
        raise AssertionError("a line was looked at")

    async def scenario() -> httpx2.Response:
        async with calling(app) as http:
            return await http.post("/v1/batches", content=line * (MOST_LINES + 1), headers=JSONL)

    monkeypatch.setattr("producer.gateway.intake.parsed", looked)
    monkeypatch.setattr("producer.gateway.batch_records.is_visible", looked)
    refused = asyncio.run(scenario())
    assert refused.status_code == 422
    assert f"{MOST_LINES} are allowed" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/v1/uploads", "image/png"), ("/v1/batches", "text/plain"), ("/v1/jobs", "application/json")],
)
def test_who_goes_away_in_the_middle_of_a_body_is_no_error_of_ours(
    settings: Settings, path: str, kind: str
) -> None:
    def counted(status: str) -> float:
        name = "crossmodal_http_requests_total"
        return value(HTTP.collect(), name, route=path, status=status)

    gone, faults = counted("499"), counted("500")
    with in_thread(settings, needs_keys=False) as url:
        there = urlsplit(url)
        with socket.create_connection((str(there.hostname), there.port or 80)) as caller:
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
            caller.sendall(f"{head}Content-Length: 1000\r\n\r\nthe beginning".encode())
        until(lambda: counted("499") + counted("500") > gone + faults)
    assert (counted("499"), counted("500")) == (gone + 1, faults)


def test_who_goes_away_while_waiting_for_a_job_is_waited_for_no_longer(settings: Settings) -> None:
    def answered() -> float:
        name = "crossmodal_http_requests_total"
        return value(HTTP.collect(), name, route="/v1/jobs", status="202")

    before = answered()
    body = b'{"task": "txt2img", "prompt": "a red circle"}'
    with in_thread(settings, needs_keys=False) as url, Client(settings) as client:
        there = urlsplit(url)
        with socket.create_connection((str(there.hostname), there.port or 80)) as caller:
            head = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=60\r\n"
            kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            caller.sendall((head + kind).encode() + body)
            until(lambda: bool(client.jobs().jobs), 30, "the job")
        until(lambda: answered() > before, 30, "the end of the request")


def test_an_error_of_ours_is_a_problem_with_the_headers_of_all(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def asked() -> httpx2.Response:
        async with calling(app) as http:
            return await http.get("/v1/models")

    monkeypatch.setattr("producer.gateway.routes.operations.ModelPage", None)
    reply = asyncio.run(asked())
    assert (reply.status_code, reply.json()["code"]) == (500, "internal_error")
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in reply.headers["content-security-policy"]


def _posted(app: FastAPI, times: int) -> list[httpx2.Response]:
    async def scenario() -> list[httpx2.Response]:
        async with calling(app) as http:
            return [
                await http.post("/v1/batches", content=LINE, headers=JSONL) for _ in range(times)
            ]

    return asyncio.run(scenario())


def _inputs(services: Services) -> list[str]:
    return [blob.key for blob in services.sync.storage.list(RESULTS)]
