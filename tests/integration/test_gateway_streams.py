"""How many event streams a key may have open, in gateways of the tests' own."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from typing import Any

import httpx2
import pytest

from crossmodal.errors import InvalidParams
from crossmodal.jobs.ledger import Attempt
from crossmodal.jobs.names import job_key
from crossmodal.jobs.record import Failure, JobEvent
from crossmodal.jobs.workers import Workers
from crossmodal.local.valkey import free_port
from crossmodal.settings import Settings, load_settings
from producer import Client
from producer.gateway.waiting import patience_s
from producer.http import connections
from tests.gateway import in_thread
from tests.integration.test_gateway import events
from tests.waiting import until

MOST = 3
DRAW = {"task": "txt2img", "prompt": "a red circle"}


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


@pytest.fixture
def url(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A gateway that asks for keys, and lets each hold three connections open."""
    monkeypatch.setattr(connections, "MAX_OPEN", MOST)
    with in_thread(settings, needs_keys=True) as url:
        yield url


@pytest.mark.parametrize(
    ("left_s", "least", "most"), [(3.0, 2.0, 3.0), (0.0, 0.05, 0.05), (-5.0, 10.0, 10.0)]
)
def test_a_job_is_looked_at_when_its_time_is_up_and_no_more_often_once_that_is_over(
    client: Client, left_s: float, least: float, most: float
) -> None:
    """One that was started in time may wait to be tried again, long after."""
    job = client.record(client.txt2img("a red circle"))
    job = job.model_copy(update={"expires_at": time.time() + left_s})
    assert least <= patience_s(job) <= most


def test_a_caller_that_waits_is_told_that_the_gateway_stops(
    settings: Settings, client: Client
) -> None:
    with ThreadPoolExecutor() as threads:
        with in_thread(settings, needs_keys=False) as url:
            body = {"prompt": "a red circle"}
            asked = threads.submit(
                httpx2.post, f"{url}/v1/images/generations", json=body, timeout=60
            )
            until(lambda: client.queue("txt2img").depth == 1, 30)
        reply = asked.result()
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (503, "overloaded")
    assert "is being stopped" in error["message"]
    assert client.queue("txt2img").depth == 0


def with_key(url: str, client: Client) -> httpx2.Client:
    _, token = client.keys.create("test", per_second=1_000, burst=10_000)
    return httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30)


def opens(http: httpx2.Client, path: str) -> bool:
    with http.stream("GET", path) as reply:
        return reply.status_code == 200


@pytest.mark.parametrize("path", ["/v1/events", "/v1/jobs/{job}/events"])
def test_a_key_has_only_so_many_streams_open(url: str, client: Client, path: str) -> None:
    with with_key(url, client) as http, with_key(url, client) as other, ExitStack() as streams:
        path = path.format(job=http.post("/v1/jobs", json=DRAW).json()["id"])
        for _ in range(MOST):
            reply = streams.enter_context(http.stream("GET", path))
            assert reply.status_code == 200
        refused = http.get(path)
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert int(refused.headers["retry-after"]) >= 1
        assert opens(other, "/v1/events")
        assert http.get("/v1/jobs").status_code == 200
        streams.close()
        until(lambda: opens(http, path), 20, "room for another")


def test_who_has_no_room_to_wait_in_is_answered_at_once(url: str, client: Client) -> None:
    with with_key(url, client) as http, ExitStack() as streams:
        for _ in range(MOST):
            streams.enter_context(http.stream("GET", "/v1/events"))
        reply = http.post("/v1/jobs", json=DRAW, headers={"Prefer": "wait=60"})
        assert reply.status_code == 202
        assert "preference-applied" not in reply.headers


def test_who_needs_no_key_is_not_counted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_OPEN", 1)
    with (
        in_thread(settings, needs_keys=False) as url,
        httpx2.Client(base_url=url, timeout=30) as http,
        ExitStack() as streams,
    ):
        for _ in range(MOST):
            assert streams.enter_context(http.stream("GET", "/v1/events")).status_code == 200


def test_a_model_that_has_been_loaded_is_told_though_no_queue_has_changed(
    settings: Settings, url: str, client: Client
) -> None:
    said = {"queues": ["txt2img"], "device": "cpu"}
    workers = Workers(settings)
    client.run(workers.announce("one", **said, loading=["turbo"]))
    with with_key(url, client) as http, http.stream("GET", "/v1/events") as reply:
        shown = (json.loads(e["data"]) for e in events(reply) if e["event"] == "queues")
        [before] = next(shown)["workers"]
        client.run(workers.announce("one", **said, models=["turbo"]))
        [after] = next(shown)["workers"]
    assert (before["models"], before["loading"]) == ([], ["turbo"])
    assert (after["models"], after["loading"]) == (["turbo"], [])


def test_an_event_source_comes_back_after_an_outage() -> None:
    """Which it never does after an error; to whoever else asks, it is one."""
    nowhere = load_settings(broker_url=f"redis://127.0.0.1:{free_port()}/0", connect_timeout_s=0.2)
    with in_thread(nowhere, needs_keys=False) as url, httpx2.Client(base_url=url) as http:
        for path in ("/v1/events", "/v1/jobs/a/events"):
            reply = http.get(path, headers={"Accept": "text/event-stream"})
            assert (reply.status_code, reply.headers["retry-after"]) == (200, "5")
            assert reply.headers["content-type"].startswith("text/event-stream")
            assert reply.text.endswith("\nretry: 5000\n\n")
            assert http.get(path, headers={"Accept": "*/*"}).status_code == 503


def test_every_state_is_told_though_the_clock_of_redis_was_put_back(
    client: Client, settings: Settings, admin: Any
) -> None:
    """Also to who has seen what happened before; its ids say what comes after what."""
    with in_thread(settings, needs_keys=False) as url, httpx2.Client(base_url=url) as http:
        job = client.txt2img("a red circle").id
        later = client.record(job).created_at + 3_600  # as if the clock had been put back since
        admin.hset(job_key(settings.key_prefix, job), "created_at", later)
        attempt = client.run(client.ledger.start(job, "worker@here"))
        assert isinstance(attempt, Attempt)
        path = f"/v1/jobs/{job}/events"
        with http.stream("GET", path) as reply:
            told = list(islice(events(reply), 2))
        client.run(client.ledger.fail(attempt, Failure.of(InvalidParams("it is wrong"))))
        with http.stream("GET", path, headers={"Last-Event-ID": told[-1]["id"]}) as reply:
            told += list(events(reply))
        assert [event["event"] for event in told] == ["state", "state", "state", "end"]
        states = [json.loads(event["data"])["state"] for event in told[:3]]
        assert states == ["queued", "running", "failed"]
        assert [event.state for event in client.history(job)] == states
        steps = [event for event in client.events(job) if isinstance(event, JobEvent)]
        assert [event.state for event in steps] == states
