"""Bodies that do not end hold neither the gateway nor the MCP server up, over any route."""

import asyncio
import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import httpx2
import pytest
from starlette.types import Message, Receive, Scope, Send

from crossmodal.settings import Settings
from producer import Client
from producer.http import bodies, connections
from producer.mcp.desk import AgentsClient, Desk
from producer.mcp.http import Keys, make_app
from producer.mcp.server import make_server
from producer.pictures.png import write_png
from tests.bodies import MCP, ROUTES, Half, Route, requests_at
from tests.gateway import in_thread, serving
from tests.waiting import until

LENGTH = 400_000  # of which all but `bodies.FREE` count
JOBS = Route("/v1/jobs")
DRAW = {"task": "txt2img", "prompt": "a red circle"}
every_server = pytest.mark.parametrize("routes", [ROUTES, (MCP,)], ids=["gateway", "mcp"])


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Those of a server that takes little: 500 kB of bodies of a key, 1.9 MB of all."""
    return settings.model_copy(
        update={
            "max_image_bytes": 300_000,
            "max_batch_bytes": 500_000,
            "max_bodies_bytes": 1_900_000,
        }
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


def token_of(client: Client) -> str:
    _, token = client.keys.create("test", per_second=1_000, burst=10_000)
    return token


@contextmanager
def server_of(routes: tuple[Route, ...], settings: Settings) -> Iterator[str]:
    """The URL of a server that asks for keys and has the routes."""
    if MCP not in routes:
        with in_thread(settings, needs_keys=True) as url:
            yield url
        return
    agents = AgentsClient(settings)
    keys, desk = Keys(agents), Desk(agents, patience_s=5)
    app = make_app(make_server(desk, keys.of, is_public=True), settings, keys, [])
    with serving(app, desk.waits.end) as url:
        yield url


@every_server
def test_the_bytes_of_a_key_s_bodies_are_bounded(
    settings: Settings, client: Client, routes: tuple[Route, ...]
) -> None:
    with server_of(routes, settings) as url:
        for route in routes:
            with requests_at(url) as begin:
                token = token_of(client)
                halves = [begin(route, token, LENGTH + 1) for _ in range(3)]
                for half in halves:
                    half.send(LENGTH)
                until(lambda h=halves: len(_answered(h)) >= 2, 60, "two refusals")  # type: ignore[misc]
                assert [half.status for half in _answered(halves)] == [429, 429], route
                assert b"rate_limited" in _answered(halves)[0].answer, route


@every_server
def test_a_body_that_comes_too_slowly_is_read_no_further(
    settings: Settings, client: Client, routes: tuple[Route, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "GRACE_S", 0.2)
    with server_of(routes, settings) as url, requests_at(url) as begin:
        halves = [begin(route, token_of(client), 1_000) for route in routes]
        for half, route in zip(halves, routes, strict=True):
            half.send(500)
            assert half.status == 408, route
            assert b"body_too_slow" in half.answer, route
            assert b"connection: close" in half.answer.lower(), route


def _answered(halves: list[Half]) -> list[Half]:
    return [half for half in halves if half.is_answered()]


def test_a_body_has_a_deadline_however_fast_it_comes(settings: Settings, client: Client) -> None:
    settings = settings.model_copy(update={"body_timeout_s": 0.5})
    with in_thread(settings, needs_keys=True) as url, requests_at(url) as begin:
        half = begin(JOBS, token_of(client), LENGTH)
        half.send(LENGTH - 1)
        assert half.status == 408


def test_a_stream_goes_on_though_its_request_s_body_never_comes(settings: Settings) -> None:
    """Whoever streams waits for the client's end, and has begun to before the answer begins."""
    settings = settings.model_copy(update={"body_timeout_s": 0.05})

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        ends = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert (await ends)["type"] == "http.disconnect"

    async def receive() -> Message:
        await asyncio.sleep(0.5)
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None: ...

    scope = {"type": "http", "path": "/v1/events", "headers": [(b"content-length", b"1000")]}
    asyncio.run(bodies.BodyLimits(stream, settings, lambda _: "")(scope, receive, send))


def test_the_bytes_of_all_bodies_are_bounded(settings: Settings, client: Client) -> None:
    with in_thread(settings, needs_keys=True) as url, requests_at(url) as begin:
        halves = [begin(JOBS, token_of(client), LENGTH + 1) for _ in range(7)]
        for half in halves:
            half.send(LENGTH)
        until(lambda: bool(_answered(halves)), 60, "a refusal")
        [refused, *_] = _answered(halves)
        assert refused.status == 503
        assert b'"overloaded"' in refused.answer
        assert b'"retryable":true' in refused.answer


def test_small_requests_are_taken_though_a_key_holds_all_it_may(
    settings: Settings, client: Client
) -> None:
    with in_thread(settings, needs_keys=True) as url, requests_at(url) as begin:
        token = token_of(client)
        halves = [begin(JOBS, token, LENGTH + 1) for _ in range(2)]
        for half in halves:
            half.send(LENGTH)
        until(lambda: bool(_answered(halves)), 60, "a refusal")
        said = {"Authorization": f"Bearer {token}"}
        assert httpx2.post(f"{url}/v1/jobs", json=DRAW, headers=said).status_code == 202


def test_bodies_that_were_answered_are_held_no_more(settings: Settings, client: Client) -> None:
    with in_thread(settings, needs_keys=True) as url:
        said = {"Authorization": f"Bearer {token_of(client)}", "Content-Type": "image/png"}
        with httpx2.Client(base_url=url, headers=said, timeout=60) as http:
            sent = [http.post("/v1/uploads", content=bytes(250_000)) for _ in range(5)]
        assert {reply.status_code for reply in sent} == {422}  # no picture, but read


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/sdapi/v1/interrogate"])
def test_pictures_of_jobs_that_are_waited_for_are_held_no_more(
    settings: Settings, client: Client, path: str
) -> None:
    picture = write_png(b"\xff\0\0" * 64, 8, 8, 3) + bytes(200_000)
    data = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    body = (
        {"image": data}
        if "sdapi" in path
        else {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": data}}]}
            ]
        }
    )
    with in_thread(settings, needs_keys=True) as url, ThreadPoolExecutor(4) as threads:
        token = token_of(client)
        owner = token.split("_")[1]
        said = {"Authorization": f"Bearer {token}"}
        for count in range(1, 5):
            threads.submit(httpx2.post, url + path, json=body, headers=said, timeout=60)
            until(partial(_has_jobs, client, owner, count), 60, f"job {count}")
        client.cancel_all(owner)


def _has_jobs(client: Client, owner: str, count: int) -> bool:
    return len(client.jobs(owner).jobs) == count


def test_requests_whose_bodies_do_not_come_count_as_open(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_OPEN", 3)
    monkeypatch.setattr(connections, "BESIDE", 2)
    with in_thread(settings, needs_keys=True) as url, requests_at(url) as begin:
        token, other = token_of(client), token_of(client)
        halves = [begin(JOBS, token, 1_000) for _ in range(6)]
        until(lambda: bool(_answered(halves)), 60, "a refusal")
        [refused] = _answered(halves)
        assert refused.status == 429
        said = {"Authorization": f"Bearer {other}"}
        assert httpx2.get(f"{url}/v1/jobs", headers=said).status_code == 200
