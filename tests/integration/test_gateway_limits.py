"""What keeps one caller, or a store that hangs, from stopping the gateway for everybody else."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from crossmodal.errors import BrokerUnavailable, StorageUnavailable
from crossmodal.jobs.names import RESULTS
from crossmodal.settings import Settings
from crossmodal.storage import Storage, StoredBlob
from producer.gateway import feeder, readiness
from producer.gateway.app import make_app
from producer.gateway.services import STORE_THREADS, Services
from tests.gateway import calling
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
    services.sync._opened = storage
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
            monkeypatch.setattr("producer.gateway.blobs._type_of", lambda *_: "image/png")
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
    def away(self: Storage, key: str) -> StoredBlob | None:
        raise StorageUnavailable("nobody listens there")

    async def scenario() -> list[int]:
        async with calling(app) as http:
            with monkeypatch.context() as patched:
                patched.setattr(Storage, "head", away)
                while_away = await http.get("/readyz")
            return [while_away.status_code, (await http.get("/readyz")).status_code]

    monkeypatch.setattr(readiness, "FRESH_S", 0.0)
    assert asyncio.run(scenario()) == [503, 200]


def test_a_batch_too_many_is_refused_and_leaves_nothing_in_the_store(
    app: FastAPI, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeder, "MOST_UNFINISHED", 1)
    first, second = _posted(app, 2)
    assert (first.status_code, second.status_code) == (202, 429)
    assert second.json()["code"] == "too_many_queued"
    assert len(_inputs(services)) == 1


@pytest.mark.parametrize("method", ["open", "check_room"])
def test_a_batch_that_cannot_be_noted_leaves_nothing_in_the_store(
    app: FastAPI, services: Services, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def away(*_: Any) -> None:
        raise BrokerUnavailable("nobody listens there")

    monkeypatch.setattr(services.batches, method, away)
    [refused] = _posted(app, 1)
    assert refused.status_code == 503
    assert _inputs(services) == []


def _posted(app: FastAPI, times: int) -> list[httpx2.Response]:
    async def scenario() -> list[httpx2.Response]:
        async with calling(app) as http:
            return [
                await http.post("/v1/batches", content=LINE, headers=JSONL) for _ in range(times)
            ]

    return asyncio.run(scenario())


def _inputs(services: Services) -> list[str]:
    return [blob.key for blob in services.sync.storage.list(RESULTS)]
