"""Who may: keys see what is theirs, at the pace that is theirs, and wait in turn."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from crossmodal.jobs.acl import Role
from crossmodal.jobs.ledger import Attempt
from crossmodal.jobs.names import new_job_id
from crossmodal.jobs.origin import Origin
from crossmodal.jobs.record import Failure
from crossmodal.jobs.submission import Submission
from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import Txt2ImgParams
from producer import Client
from tests.at_once import at_once
from tests.background import background
from tests.commands import run_command
from tests.conftest import RunningStack
from tests.gateway import Gateway, running_gateway
from tests.waiting import until

DRAW = {"task": "txt2img", "prompt": "a large red circle on a white background", "seed": 7}
WAIT = {"Prefer": "wait=60"}
JSONL = {"Content-Type": "application/jsonl"}
LINE = json.dumps({"custom_id": "a", "url": "/v1/txt2img", "body": {"prompt": "a red circle"}})


@pytest.fixture(scope="module")
def gateway(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Client(stack.settings) as client:
        client.keys.create("the first", per_second=1_000, burst=10_000)
    folder = tmp_path_factory.mktemp("keys")
    with (
        background(stack.env, folder / "background"),
        running_gateway(stack.env, folder, "--keys") as gateway,
    ):
        yield gateway


def new_key(gateway: Gateway, client: Client, **limits: Any) -> httpx2.Client:
    fast = {"per_second": 1_000, "burst": 10_000}
    _, token = client.keys.create("test", **(fast | limits))
    return gateway.as_key(token)


@dataclass(frozen=True)
class Belongings:
    """What one key has made: something of each kind that a route can name."""

    job: str
    image: str
    upload: str
    batch: str
    letter: str
    file: str


@pytest.fixture(scope="module")
def belongings(gateway: Gateway, stack: RunningStack) -> Belongings:
    with Client(stack.settings) as client, new_key(gateway, client) as http:
        job = http.post("/v1/jobs", json=DRAW, headers=WAIT).json()
        picture = http.get(job["result"]["images"][0]["url"]).content
        kind = {"Content-Type": "image/png"}
        upload = http.post("/v1/uploads", content=picture, headers=kind).json()
        batch = http.post("/v1/batches", content=LINE, headers=JSONL).json()
        until(lambda: http.get(batch["status_url"]).json()["status"] == "completed", 60)
        letter = dead_letter(client, owner=client.record(job["id"]).owner)
        lines = {"file": ("lines.jsonl", LINE), "purpose": (None, "batch")}
        file = http.post("/v1/files", files=lines).json()["id"]
        return Belongings(
            job=job["id"],
            image=job["result"]["images"][0]["key"],
            upload=upload["key"],
            batch=batch["id"],
            letter=letter,
            file=file,
        )


def dead_letter(client: Client, owner: str) -> str:
    """A job that was given up, as a worker does that."""
    job_id = new_job_id()
    params = Txt2ImgParams(prompt="a red circle", seed=1).model_dump_json()
    client.run(
        client.ledger.submit(Submission(job_id, Task("txt2img"), params, "", origin=Origin(owner)))
    )
    attempt = client.run(client.ledger.start(job_id, "cpu@here"))
    assert isinstance(attempt, Attempt)
    client.run(
        client.ledger.fail(attempt, Failure(code="internal_error", message="a fault"), dead=True)
    )
    return job_id


ROUTES: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/v1/jobs/{job}", {}),
    ("GET", "/v1/jobs/{job}/result", {}),
    ("GET", "/v1/jobs/{job}/events", {}),
    ("POST", "/v1/jobs/{job}/cancel", {}),
    ("POST", "/v1/jobs/{job}/retry", {}),
    ("DELETE", "/v1/jobs/{job}", {}),
    ("GET", "/v1/blobs/{image}", {}),
    ("GET", "/v1/blobs/{upload}", {}),
    ("GET", "/v1/blobs/results/{job}/captions.json", {}),
    ("GET", "/v1/blobs/previews/{job}/1.jpeg", {}),
    ("GET", "/v1/blobs/results/{batch}.0/0.jsonl", {}),
    ("GET", "/v1/blobs/results/{batch}/output.jsonl", {}),
    ("GET", "/v1/batches/{batch}", {}),
    ("GET", "/v1/batches/{batch}/output", {}),
    ("POST", "/v1/batches/{batch}/cancel", {}),
    ("GET", "/v1/batches/batch_{batch}", {}),
    ("POST", "/v1/batches/batch_{batch}/cancel", {}),
    ("GET", "/v1/files/{file}", {}),
    ("GET", "/v1/files/{file}/content", {}),
    ("GET", "/v1/files/file-{batch}-output/content", {}),
    ("DELETE", "/v1/files/{file}", {}),
    (
        "POST",
        "/v1/batches",
        {
            "json": {
                "input_file_id": "{file}",
                "endpoint": "/v1/images/generations",
                "completion_window": "24h",
            }
        },
    ),
    ("GET", "/v1/jobs/{batch}.0", {}),
    ("POST", "/v1/jobs/{batch}.0/cancel", {}),
    ("POST", "/v1/dead-letters/{letter}/replay", {}),
    ("POST", "/v1/jobs", {"json": {"task": "img2txt", "image": {"key": "{upload}"}}}),
    ("POST", "/v1/jobs", {"json": {"task": "img2txt", "image": {"key": "{image}"}}}),
]


def filled(value: Any, of: Belongings) -> Any:
    text = json.dumps(value)
    for name, known in vars(of).items():
        text = text.replace(f"{{{name}}}", known)
    return json.loads(text)


@at_once("method, path, options", ROUTES)
def test_what_belongs_to_a_key_is_not_there_for_another(
    gateway: Gateway,
    client: Client,
    belongings: Belongings,
    method: str,
    path: str,
    options: dict[str, Any],
) -> None:
    with new_key(gateway, client) as other:
        reply = other.request(method, filled(path, belongings), **filled(options, belongings))
        assert reply.status_code == 404, reply.text


@at_once("method, path, options", ROUTES)
def test_without_a_key_nothing_is_answered(
    gateway: Gateway, belongings: Belongings, method: str, path: str, options: dict[str, Any]
) -> None:
    reply = gateway.http.request(method, filled(path, belongings), **filled(options, belongings))
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"].startswith("Bearer")


def test_anothers_job_and_none_are_answered_in_the_same_words(
    gateway: Gateway, client: Client, belongings: Belongings
) -> None:
    with new_key(gateway, client) as other:
        for path in ("/v1/jobs/{}", "/v1/batches/{}"):
            known = belongings.job if "jobs" in path else belongings.batch
            there = other.get(path.format(known)).json()["detail"].replace(known, "ID")
            absent = other.get(path.format("none")).json()["detail"].replace("none", "ID")
            assert there == absent


def test_every_route_with_a_name_in_it_is_in_the_table(gateway: Gateway) -> None:
    document = gateway.http.get("/openapi.json").json()
    named = {
        (method.upper(), path.split("{")[0])
        for path, methods in document["paths"].items()
        for method in methods
        if "{" in path
    }
    tested = {(method, path.split("{")[0]) for method, path, _ in ROUTES}
    tested |= {("GET", "/v1/models/"), ("POST", "/v1/queues/")}  # what belongs to nobody
    assert {(m, p) for m, p in named if (m, p) not in tested} == set()


def test_a_key_lists_its_own_jobs_and_deliveries_alone(
    gateway: Gateway, client: Client, belongings: Belongings
) -> None:
    with new_key(gateway, client) as other:
        assert other.get("/v1/jobs").json() == {"data": [], "next_cursor": None}
        assert other.get("/v1/webhooks/deliveries").json() == {"data": []}
        assert other.get("/v1/dead-letters").json()["data"] == []
        params = {"job": belongings.job}
        assert other.get("/v1/webhooks/deliveries", params=params).json() == {"data": []}
        own = other.post("/v1/jobs", json=DRAW, headers=WAIT).json()["id"]
        assert [job["id"] for job in other.get("/v1/jobs").json()["data"]] == [own]


def test_a_key_hears_of_its_own_jobs_alone(gateway: Gateway, client: Client) -> None:
    with (
        new_key(gateway, client) as one,
        new_key(gateway, client) as other,
        one.stream("GET", "/v1/events") as reply,
    ):
        lines = reply.iter_lines()
        next(lines)
        for _ in range(3):
            other.post("/v1/jobs", json=DRAW, headers=WAIT)
        own = one.post("/v1/jobs", json=DRAW).json()["id"]
        for line in lines:
            if line.startswith('data: {"id"'):
                assert json.loads(line.removeprefix("data: "))["id"] == own
                break


def test_the_same_idempotency_key_of_two_keys_is_two_jobs(gateway: Gateway, client: Client) -> None:
    same = {"Idempotency-Key": "order-1"}
    with new_key(gateway, client) as one, new_key(gateway, client) as other:
        first = one.post("/v1/jobs", json=DRAW, headers=same).json()["id"]
        assert one.post("/v1/jobs", json=DRAW, headers=same).json()["id"] == first
        assert other.post("/v1/jobs", json=DRAW, headers=same).json()["id"] != first


@at_once("token", ["cm_x", "cm_aaaaaaaaaaaa_" + "a" * 43, "é"])
def test_a_key_that_is_not_known_is_refused(gateway: Gateway, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}".encode()}
    reply = gateway.http.get("/v1/jobs", headers=headers)  # type: ignore[arg-type]
    assert (reply.status_code, reply.json()["code"]) == (401, "unauthorized")


def test_a_revoked_key_is_refused_at_once(gateway: Gateway, client: Client) -> None:
    key, token = client.keys.create("short-lived")
    with gateway.as_key(token) as http:
        assert http.get("/v1/jobs").status_code == 200
        client.keys.revoke(key.id)
        assert http.get("/v1/jobs").status_code == 401


def test_redis_does_not_hold_what_a_key_is_recognised_by(client: Client) -> None:
    key, token = client.keys.create("hashed")
    secret = token.removeprefix(f"cm_{key.id}_")
    held = [
        value
        for name in client.redis.scan_iter(f"{client.settings.key_prefix}:api-key:*", _type="HASH")
        for value in client.redis.hgetall(name).values()
    ]
    assert held
    assert not any(secret in value for value in held)


def test_no_key_and_no_prompt_is_in_the_gateways_log(gateway: Gateway, client: Client) -> None:
    key, token = client.keys.create("discreet")
    with gateway.as_key(token) as http:
        http.post("/v1/jobs", json=DRAW | {"prompt": "a red zanzibar"}, headers=WAIT)
        http.post("/v1/jobs", json=DRAW | {"prompt": "zanzibar", "count": 99})
    said = gateway.log.read_text()
    assert said
    assert token.removeprefix(f"cm_{key.id}_") not in said
    assert "zanzibar" not in said


def test_a_key_that_calls_too_fast_is_told_when_to_come_back(
    gateway: Gateway, client: Client
) -> None:
    with new_key(gateway, client, per_second=0.05, burst=3) as http:
        replies = [http.get("/v1/jobs") for _ in range(5)]
    assert [reply.status_code for reply in replies] == [200, 200, 200, 429, 429]
    assert replies[-1].json()["code"] == "rate_limited"
    assert 1 <= int(replies[-1].headers["retry-after"]) <= 40


def test_a_dead_letter_is_replayed_by_its_own_key_as_its_own_job(
    gateway: Gateway, client: Client
) -> None:
    key, token = client.keys.create("careful")
    letter = dead_letter(client, key.id)
    with gateway.as_key(token) as http:
        [shown] = http.get("/v1/dead-letters").json()["data"]
        assert (shown["id"], shown["code"], shown["job"]["id"]) == (
            letter,
            "internal_error",
            letter,
        )
        job = http.post(f"/v1/dead-letters/{letter}/replay").json()["job"]
        assert http.get(f"/v1/jobs/{job}").status_code == 200
        assert http.get("/v1/dead-letters").json()["data"] == []


def test_metrics_and_dead_letters_of_all_are_for_operators(
    gateway: Gateway, client: Client
) -> None:
    with new_key(gateway, client) as http:
        reply = http.get("/metrics")
        assert (reply.status_code, reply.json()["code"]) == (403, "forbidden")
    with new_key(gateway, client, is_operator=True) as http:
        assert "crossmodal_queue_depth" in http.get("/metrics").text


def test_keys_are_made_listed_and_revoked_on_the_command_line(stack: RunningStack) -> None:
    made = json.loads(keys(stack, "create", "web shop", "--per-second", "5"))
    assert made["token"].startswith(f"cm_{made['id']}_")
    listed = {key["id"]: key for key in json.loads(keys(stack, "list"))}
    assert (listed[made["id"]]["name"], listed[made["id"]]["per_second"]) == ("web shop", 5)
    assert "token" not in listed[made["id"]]
    assert json.loads(keys(stack, "revoke", made["id"]))["revoked_at"] is not None


def keys(stack: RunningStack, *arguments: str) -> str:
    done = run_command(stack.env, "keys", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("options", [["--address", "0.0.0.0", "--no-keys"], ["--address", "::"]])
def test_no_other_address_is_listened_at_without_keys(
    stack: RunningStack, options: list[str]
) -> None:
    prefix = "no-keys-here"
    stack.server.add_users(prefix)
    own = {
        "CROSSMODAL_KEY_PREFIX": prefix,
        "CELERY_BROKER_URL": stack.server.url(Role.PRODUCER, prefix),
    }
    env = {**os.environ, **stack.env, **own}
    command = [sys.executable, "-m", "crossmodal.cli", "gateway", "--port", "0", *options]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "invalid_setting" in ended.stderr
