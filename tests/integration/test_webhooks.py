"""Webhooks to a real receiver: signed, tried again while it is away, told once it is back."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook

from crossmodal.jobs.acl import Role
from crossmodal.jobs.origin import Origin
from crossmodal.jobs.origin import Webhook as Hook
from crossmodal.jobs.webhooks import RETRIES_S
from crossmodal.local.stack import Stack
from crossmodal.local.valkey import free_port
from producer import Client
from tests.conftest import RunningStack
from tests.gateway import Gateway, running_gateway
from tests.ledgers import Ledger
from tests.waiting import until
from worker.courier import Courier

DRAW = {"task": "txt2img", "prompt": "a large red circle on a white background", "seed": 7}


@dataclass
class Receiver:
    """A server that writes down what it is told, and answers with `status`."""

    port: int
    status: int = 204
    told: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks"

    def start(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.told.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def bodies(self, job_id: str) -> list[dict[str, Any]]:
        bodies = [json.loads(body) for _, body in self.told]
        return [body for body in bodies if body["data"]["job"] == job_id]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver(free_port())
    receiver.start()
    yield receiver
    receiver.stop()


@pytest.fixture(scope="module")
def env(stack: RunningStack) -> dict[str, str]:
    return stack.env | {"CROSSMODAL_ALLOW_PRIVATE_URLS": "true"}


@pytest.fixture(scope="module")
def courier(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A worker that delivers; its log."""
    log = tmp_path_factory.mktemp("courier") / "courier.log"
    with log.open("wb") as output, Stack(env, output) as running:
        running.start_webhooks()
        until(lambda: b" ready" in log.read_bytes(), 60, "the courier")
        yield log


@pytest.fixture(scope="module")
def gateway(
    env: dict[str, str], courier: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    with running_gateway(env, tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


def submit(gateway: Gateway, receiver: Receiver, **fields: Any) -> str:
    wanted = DRAW | {"webhook_url": receiver.url} | fields
    reply = gateway.http.post("/v1/jobs", json=wanted)
    assert reply.status_code == 202, reply.text
    return str(reply.json()["id"])


def deliveries(gateway: Gateway, job_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = gateway.http.get(
        "/v1/webhooks/deliveries", params={"job": job_id}
    ).json()["data"]
    return found


def test_the_end_of_a_job_is_told_with_a_signature_that_verifies(
    gateway: Gateway, receiver: Receiver
) -> None:
    job_id = submit(gateway, receiver)
    until(lambda: receiver.told != [], 60, "a delivery")
    [(headers, body)] = receiver.told
    secret = gateway.http.get("/v1/webhooks/secret").json()["secret"]
    told = Webhook(secret).verify(body, headers)
    assert told["type"] == "job.succeeded"
    assert told["data"]["job"] == job_id
    assert gateway.http.get(told["data"]["result_url"]).json()["images"]
    until(lambda: deliveries(gateway, job_id)[0]["outcome"] == "delivered", 60, "its record")
    [delivery] = deliveries(gateway, job_id)
    assert (delivery["tries"], delivery["status"], delivery["url"]) == (1, 204, receiver.url)


def test_only_the_events_that_were_asked_for_are_told(gateway: Gateway, receiver: Receiver) -> None:
    job_id = submit(gateway, receiver, webhook_events=["job.running", "job.failed"])
    until(lambda: gateway.http.get(f"/v1/jobs/{job_id}").json()["state"] == "succeeded", 60)
    until(lambda: receiver.told != [], 60, "a delivery")
    assert [body["type"] for body in receiver.bodies(job_id)] == ["job.running"]
    assert len(deliveries(gateway, job_id)) == 1


def test_a_failed_job_is_told_with_its_code(gateway: Gateway, receiver: Receiver) -> None:
    job_id = submit(gateway, receiver, prompt="zorg frob")
    until(lambda: receiver.bodies(job_id) != [], 60, "a delivery")
    [body] = receiver.bodies(job_id)
    assert (body["type"], body["data"]["code"]) == ("job.failed", "unknown_words")


def test_a_receiver_that_is_gone_is_not_tried_again(gateway: Gateway, receiver: Receiver) -> None:
    receiver.status = 410
    job_id = submit(gateway, receiver)
    until(lambda: [d["outcome"] for d in deliveries(gateway, job_id)] == ["failed"], 60)
    assert len(receiver.bodies(job_id)) == 1


def test_a_receiver_that_was_down_is_told_once_it_is_back_and_no_restart_loses_that(
    gateway: Gateway, receiver: Receiver, env: dict[str, str], tmp_path: Path
) -> None:
    receiver.stop()
    with running_gateway(env, tmp_path) as first:
        jobs = [submit(first, receiver) for _ in range(5)]
        until(lambda: all(deliveries(first, job) for job in jobs), 60, "all ends")
        until(lambda: all(deliveries(first, job)[0]["tries"] for job in jobs), 60, "a try")
        assert deliveries(first, jobs[0])[0]["outcome"] == "pending"
        assert "fetch_failed" in deliveries(first, jobs[0])[0]["error"]
        first.child.kill()
    receiver.start()
    until(lambda: all(receiver.bodies(job) for job in jobs), 60, "all deliveries")
    until(lambda: deliveries(gateway, jobs[0])[0]["outcome"] == "delivered", 60, "its record")
    assert [len(receiver.bodies(job)) for job in jobs] == [1] * 5


def test_a_delivery_whose_message_is_lost_is_tried_again_when_it_is_due(
    env: dict[str, str], gateway: Gateway, receiver: Receiver, stack: RunningStack
) -> None:
    with Client(stack.settings) as client:
        receiver.status = 503
        job_id = submit(gateway, receiver)
        until(lambda: receiver.bodies(job_id) != [], 60, "a try")
        until(lambda: deliveries(gateway, job_id)[0]["next_at"] is not None, 60)
        [delivery] = deliveries(gateway, job_id)
        wait_s = delivery["next_at"] - delivery["tried_at"]
        least_s = RETRIES_S[delivery["tries"] - 1]
        assert least_s <= wait_s <= least_s * 1.25
        receiver.status = 200
        client.redis.delete("webhooks")
        until(lambda: deliveries(gateway, job_id)[0]["outcome"] == "delivered", 60, "the next try")


def test_private_receivers_are_refused_unless_they_are_allowed(
    stack: RunningStack, receiver: Receiver
) -> None:
    prefix = "webhook-ssrf"
    stack.server.add_users(prefix)
    url = SecretStr(stack.server.url(Role.WORKER, prefix))
    settings = stack.settings.model_copy(update={"key_prefix": prefix, "broker_url": url})
    assert not settings.allow_private_urls
    with Client(settings) as client:
        from crossmodal.jobs.names import Task, new_job_id

        ledger = Ledger(settings)
        job_id = new_job_id()
        hook = Hook(url=receiver.url, base="http://gateway.example")
        ledger.submit(job_id, Task.TXT2IMG, "{}", "", origin=Origin(webhook=hook))
        ledger.cancel(job_id)
        [delivery] = client.webhooks.list("", 10)
        told = Courier(settings).deliver(delivery.id)
        assert told is not None
        assert told.outcome == "failed"
        assert "url_refused" in str(told.error)
    assert receiver.told == []


def test_each_key_signs_with_a_secret_of_its_own(stack: RunningStack) -> None:
    with Client(stack.settings) as client:
        keys = client.keys
        one, other = (keys.create(name)[0].id for name in ("one", "other"))
        assert keys.webhook_secret(one) == keys.webhook_secret(one)
        assert keys.webhook_secret(one) != keys.webhook_secret(other)
