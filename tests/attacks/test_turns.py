"""The work of one key, in a gateway and in the background process, does not hold up others."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from crossmodal.jobs.names import new_job_id
from crossmodal.settings import Settings
from producer import Client
from producer.gateway import batch_records
from producer.gateway.app import make_app
from producer.gateway.intake import MOST_LINES
from producer.gateway.services import LONG_THREADS, Services, Turns
from tests.background import background
from tests.conftest import RunningStack, settings_of
from tests.gateway import calling, running_gateway
from tests.waiting import until

JSONL = {"Content-Type": "application/jsonl"}
LINE = b'{"url": "/v1/txt2img", "body": {"prompt": "a red circle"}}\n'


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return make_app(settings, needs_keys=False)


def test_long_work_gives_others_a_turn(app: FastAPI) -> None:
    def endless(over: threading.Event) -> Turns[None]:
        while not over.is_set():
            yield

    def short() -> Turns[str]:
        yield
        return "done"

    async def scenario() -> str:
        services: Services = app.state.services
        over = threading.Event()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(3 * LONG_THREADS):
                tasks.create_task(services.in_turns(endless(over)))
            try:
                return await asyncio.wait_for(services.in_turns(short()), 60)
            finally:
                over.set()
                await services.client.close()

    assert asyncio.run(scenario()) == "done"


def test_of_a_blob_that_many_lines_name_there_is_one_look_up(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def is_visible(blob: str, *_: Any) -> bool:
        asked.append(blob)
        return True

    async def scenario() -> int:
        keys = [f"results/{new_job_id()}/0.png" for _ in range(3)]
        lines = "\n".join(
            json.dumps({"url": "/v1/img2txt", "body": {"image": {"key": key}}})
            for key in keys * 500
        )
        async with calling(app) as http:
            reply = await http.post("/v1/batches", content=lines, headers=JSONL)
        return reply.status_code

    monkeypatch.setattr(batch_records, "is_visible", is_visible)
    assert asyncio.run(scenario()) == 202
    assert len(asked) == len(set(asked)) == 3


def test_a_key_has_one_list_made_at_a_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        app = make_app(settings, needs_keys=True)
        services: Services = app.state.services
        made, over = [], asyncio.Event()
        jobs = services.client.jobs

        async def slow(owner: str, **options: Any) -> Any:
            made.append(owner)
            if owner == greedy.id:
                await over.wait()
            return await jobs(owner, **options)

        monkeypatch.setattr(services.client, "jobs", slow)
        greedy, token = await services.ask(services.keys.create("greedy"))
        _, other = await services.ask(services.keys.create("other"))
        async with calling(app) as http, asyncio.TaskGroup() as tasks:

            def listed(token: str) -> asyncio.Task[httpx2.Response]:
                said = {"Authorization": f"Bearer {token}"}
                return tasks.create_task(http.get("/v1/jobs?state=failed", headers=said))

            many = [listed(token) for _ in range(5)]
            assert (await asyncio.wait_for(listed(other), 60)).status_code == 200
            assert made.count(greedy.id) <= 1
            over.set()
            assert {(await reply).status_code for reply in many} == {200}

    asyncio.run(scenario())


@pytest.fixture
def client(stack: RunningStack) -> Iterator[Client]:
    with Client(settings_of(stack.env)) as client:
        yield client


def test_eight_huge_batches_of_a_key_do_not_hold_up_a_line_of_another(
    stack: RunningStack, client: Client, tmp_path: Path
) -> None:
    """The line has its result while most huge batches are not done, or not even accepted."""
    _, greedy = client.keys.create("greedy", burst=1_000, max_queued=1_000_000)
    _, modest = client.keys.create("modest", burst=1_000)
    with (
        background(stack.env, tmp_path / "background"),
        running_gateway(stack.env, tmp_path, "--keys") as gateway,
        gateway.as_key(greedy) as many,
        gateway.as_key(modest) as one,
        ThreadPoolExecutor() as pool,
    ):

        def post() -> httpx2.Response:
            return many.post("/v1/batches", content=LINE * MOST_LINES, headers=JSONL, timeout=200)

        posted = [pool.submit(post) for _ in range(8)]
        until(lambda: any(batch.done() for batch in posted), 200, "the first of them")
        mine = one.post("/v1/batches", content=LINE, headers=JSONL, timeout=200).json()
        until(lambda: one.get(mine["status_url"]).json()["status"] == "completed", 200, "its end")
        batches = [batch.result() for batch in posted]
        assert {batch.status_code for batch in batches} == {202}
        states = [many.get(batch.json()["status_url"]).json()["status"] for batch in batches]
        assert states.count("in_progress") >= 6
        for batch in batches:
            many.post(batch.json()["cancel_url"])
