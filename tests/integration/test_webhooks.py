"""Webhooks to a real receiver: signed, tried again while it is away, told once it is back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from crossmodal.jobs.access import ApiKeys
from crossmodal.jobs.runners import Runner
from tests.background import background
from tests.conftest import RunningStack
from tests.gateway import Gateway, running_gateway
from tests.receiver import Receiver, listening
from tests.waiting import until

DRAW = {"task": "txt2img", "prompt": "a large red circle on a white background", "seed": 7}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def env(stack: RunningStack) -> dict[str, str]:
    return stack.env | {"CROSSMODAL_ALLOW_PRIVATE_URLS": "true"}


@pytest.fixture(scope="module")
def gateway(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway, and a background process."""
    folder = tmp_path_factory.mktemp("webhooks")
    with background(env, folder / "background"), running_gateway(env, folder) as gateway:
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


def test_a_webhook_leaves_soon_after_the_transition(gateway: Gateway, receiver: Receiver) -> None:
    job_id = submit(gateway, receiver)
    until(lambda: receiver.bodies(job_id) != [], 60, "a delivery")
    [delivery] = deliveries(gateway, job_id)
    [(headers, _)] = receiver.told
    assert int(headers["webhook-timestamp"]) - delivery["created_at"] < 10  # mostly half a second


def test_each_key_signs_with_a_secret_of_its_own(stack: RunningStack) -> None:
    keys, runner = ApiKeys(stack.settings), Runner(stack.settings)
    one, other = (runner.run(keys.create(name))[0].id for name in ("one", "other"))
    secrets = [runner.run(keys.webhook_secret(owner)) for owner in (one, one, other)]
    runner.close()
    assert secrets[0] == secrets[1] != secrets[2]
