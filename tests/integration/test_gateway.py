"""The HTTP interface against a real stack: what an app sees that is not written in Python."""

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from crossmodal.jobs.http_batches import HttpBatch, HttpBatches
from crossmodal.jobs.names import job_key, new_job_id
from crossmodal.kinds.task import Task
from crossmodal.vision.media import media_type
from producer import Client
from tests.conftest import RunningStack
from tests.gateway import Gateway, running_gateway
from tests.waiting import until

PROMPT = "a large red circle on a white background"
DRAW = {"task": "txt2img", "prompt": PROMPT, "seed": 7}
WAIT = {"Prefer": "wait=60"}


@pytest.fixture(scope="module")
def drawn(gateway: Gateway) -> dict[str, Any]:
    """A job that has drawn a picture."""
    reply = gateway.http.post("/v1/jobs", json=DRAW, headers=WAIT)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


@pytest.fixture(scope="module")
def picture(gateway: Gateway, drawn: dict[str, Any]) -> bytes:
    return gateway.http.get(drawn["result"]["images"][0]["url"]).content


def problem(reply: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = reply.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["detail"]
    return body


def test_a_submitted_job_is_accepted_and_said_where_to_find(gateway: Gateway) -> None:
    reply = gateway.http.post("/v1/jobs", json=DRAW)
    assert reply.status_code == 202
    job = reply.json()
    assert reply.headers["location"] == job["status_url"]
    assert int(reply.headers["retry-after"]) >= 1
    assert job["state"] in ("queued", "running", "succeeded")
    until(lambda: gateway.http.get(job["status_url"]).json()["state"] == "succeeded", 60, "its end")
    result = gateway.http.get(job["result_url"]).json()
    assert result["images"][0]["width"] == 128


def test_a_traceparent_is_kept_with_the_job(gateway: Gateway, client: Client) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    for given, kept in ((trace, trace), ("nonsense", None)):
        reply = gateway.http.post("/v1/jobs", json=DRAW, headers={"traceparent": given})
        key = job_key(client.settings.key_prefix, reply.json()["id"])
        assert client.redis.hget(key, "traceparent") == kept


def test_who_prefers_to_wait_gets_the_ended_job(drawn: dict[str, Any]) -> None:
    assert drawn["state"] == "succeeded"
    assert drawn["result"]["seed"] == 7
    assert drawn["finished_at"] >= drawn["started_at"] >= drawn["created_at"]


def test_a_picture_is_fetched_with_its_type_and_in_ranges(
    gateway: Gateway, drawn: dict[str, Any], picture: bytes
) -> None:
    image = drawn["result"]["images"][0]
    assert picture.startswith(b"\x89PNG")
    assert len(picture) == image["size"]
    whole = gateway.http.get(image["url"])
    assert whole.headers["content-type"] == "image/png"
    part = gateway.http.get(image["url"], headers={"Range": "bytes=1-3"})
    assert (part.status_code, part.content) == (206, b"PNG")
    assert part.headers["content-range"] == f"bytes 1-3/{len(picture)}"
    tail = gateway.http.get(image["url"], headers={"Range": "bytes=-4"})
    assert tail.content == picture[-4:]
    beyond = gateway.http.get(image["url"], headers={"Range": "bytes=999999-"})
    problem(beyond, 416, "range_not_satisfiable")
    again = gateway.http.get(image["url"], headers={"If-None-Match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("kind", ["webp", "jpeg"])
def test_a_picture_in_another_format_is_given_out_with_its_type(
    gateway: Gateway, kind: str
) -> None:
    body = DRAW | {"format": kind, "quality": 80, "embed_metadata": False}
    job = gateway.http.post("/v1/jobs", json=body, headers=WAIT).json()
    assert [job["params"][name] for name in ("format", "quality", "embed_metadata")] == [
        kind,
        80,
        False,
    ]
    [image] = job["result"]["images"]
    assert (image["media_type"], image["url"].rpartition("/")[2]) == (f"image/{kind}", f"0.{kind}")
    reply = gateway.http.get(image["url"])
    assert reply.headers["content-type"] == f"image/{kind}" == media_type(reply.content)
    asked = {"task": "img2txt", "image": {"key": image["key"]}}
    captioned = gateway.http.post("/v1/jobs", json=asked, headers=WAIT).json()
    assert "red circle" in captioned["result"]["captions"][0]["text"]


@pytest.mark.parametrize("how", ["file", "data", "upload", "result"])
def test_a_picture_is_captioned_however_it_comes(
    gateway: Gateway, drawn: dict[str, Any], picture: bytes, how: str
) -> None:
    if how == "file":
        reply = gateway.http.post(
            "/v1/jobs",
            data={"task": "img2txt", "count": "2"},
            files={"file": picture},
            headers=WAIT,
        )
    else:
        image: dict[str, str] = {"data": base64.b64encode(picture).decode()}
        if how == "upload":
            stored = gateway.http.post(
                "/v1/uploads", content=picture, headers={"Content-Type": "image/png"}
            )
            assert stored.status_code == 201, stored.text
            image = {"key": stored.json()["key"]}
        elif how == "result":
            image = {"key": drawn["result"]["images"][0]["key"]}
        wanted = {"task": "img2txt", "image": image, "count": 2}
        reply = gateway.http.post("/v1/jobs", json=wanted, headers=WAIT)
    assert reply.status_code == 200, reply.text
    job = reply.json()
    assert len(job["result"]["captions"]) == 2
    assert "red circle" in job["result"]["captions"][0]["text"]
    assert gateway.http.get(job["input_url"]).content == picture


def test_the_same_idempotency_key_gives_the_same_job_and_another_body_is_refused(
    gateway: Gateway,
) -> None:
    key = {"Idempotency-Key": "order-1"}
    first = gateway.http.post("/v1/jobs", json=DRAW, headers=key).json()
    again = gateway.http.post("/v1/jobs", json=DRAW, headers=key).json()
    assert first["id"] == again["id"]
    other = gateway.http.post("/v1/jobs", json=DRAW | {"count": 2}, headers=key)
    problem(other, 422, "idempotency_conflict")
    for more in ({"expires_in_s": 60}, {"webhook_url": "https://receiver.example/hooks"}):
        other = gateway.http.post("/v1/jobs", json=DRAW | more, headers=key)
        problem(other, 422, "idempotency_conflict")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"task": "paint"}, "invalid_params"),
        ({"task": "txt2img"}, "invalid_params"),
        ({"task": "txt2img", "prompt": " "}, "invalid_prompt"),
        ({"task": "txt2img", "prompt": "x" * 1_001}, "invalid_prompt"),
        ({"task": "txt2img", "prompt": "x", "count": 17}, "invalid_params"),
        ({"task": "txt2img", "prompt": "x", "metadata": "y" * 3_000}, "invalid_params"),
        ({"task": "txt2img", "prompt": "x", "webhook_url": "ftp://a.example"}, "url_refused"),
        ({"task": "txt2img", "prompt": "a" + "\u0301\u0316" * 20_000}, "invalid_prompt"),
        ({"task": "txt2img", "prompt": "x", "webhook_events": [1] * 5_000}, "invalid_params"),
        ({"task": "img2txt", "image": {"data": "AAAA"}}, "invalid_image"),
        ({"task": "img2txt", "image": {"data": "!"}}, "invalid_image"),
        ({"task": "img2txt", "image": {"url": "http://example.com/a.png"}}, "url_refused"),
    ],
)
def test_a_wrong_field_is_named(gateway: Gateway, body: dict[str, Any], code: str) -> None:
    problem(gateway.http.post("/v1/jobs", json=body), 422, code)


def test_what_cannot_be_read_is_a_bad_request(gateway: Gateway) -> None:
    kind = {"Content-Type": "application/json"}
    problem(gateway.http.post("/v1/jobs", content=b"{", headers=kind), 400, "bad_request")
    text = {"Content-Type": "text/plain"}
    reply = gateway.http.post("/v1/jobs", content=b"{}", headers=text)
    problem(reply, 415, "unsupported_media_type")


def test_a_body_of_very_many_values_is_not_parsed(gateway: Gateway) -> None:
    crowd = {"task": "txt2img", "prompt": "x", "metadata": [[]] * 20_000}
    problem(gateway.http.post("/v1/jobs", json=crowd), 400, "bad_request")
    deep = b'{"task": "txt2img", "prompt": "x", "metadata": ' + b"[" * 255 + b"]" * 255 + b"}"
    kind = {"Content-Type": "application/json"}
    problem(gateway.http.post("/v1/jobs", content=deep, headers=kind), 422, "invalid_params")


@pytest.mark.parametrize("field", ["5", '{"key": "x"}', '{"image": 1}'])
def test_a_picture_that_is_a_field_of_a_form_is_refused(gateway: Gateway, field: str) -> None:
    form = {"task": (None, "img2txt"), "image": (None, field)}
    reply = gateway.http.post("/v1/jobs", files=form)
    assert reply.status_code in (404, 422), reply.text


def test_a_form_of_another_charset_is_refused(gateway: Gateway) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=x; charset=unicode_escape"}
    reply = gateway.http.post("/v1/jobs", content=b"--x--\r\n", headers=kind)
    problem(reply, 415, "unsupported_media_type")


@pytest.mark.parametrize("part", [":lease", ":canceled", "/../x"])
def test_no_other_key_of_redis_is_taken_for_a_batch(gateway: Gateway, part: str) -> None:
    line = json.dumps({"url": "/v1/txt2img", "body": {"prompt": PROMPT}})
    kind = {"Content-Type": "application/jsonl"}
    batch = gateway.http.post("/v1/batches", content=line, headers=kind).json()
    gateway.http.post(batch["cancel_url"])
    assert gateway.http.get(f"/v1/batches/{batch['id']}{part}").status_code == 404


def test_metrics_are_given_whatever_version_is_asked_for(gateway: Gateway) -> None:
    for accept in ("application/openmetrics-text;version=abc", "text/plain;version=x", "*/*"):
        assert gateway.http.get("/metrics", headers={"Accept": accept}).status_code == 200


def test_a_body_that_is_too_large_is_not_read(gateway: Gateway) -> None:
    # Its length is said and nothing of it sent: who would read it all would wait for ever.
    port = httpx2.URL(gateway.url).port
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1099511627776\r\n\r\n{"
        )
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer


@pytest.mark.parametrize(
    "key",
    [
        "results/../../etc/passwd",
        "etc/passwd",
        "results//x",
        "checks/a",
        "results/nothing/0.png",
        "inputs/..",
        "inputs/%00",
        "results",
        "/etc/passwd",
    ],
)
def test_no_blob_outside_of_results_and_inputs_is_given_out(gateway: Gateway, key: str) -> None:
    encoded = key.replace("..", "%2e%2e").replace("/", "%2f")
    problem(gateway.http.get(f"/v1/blobs/{encoded}"), 404, "blob_not_found")


def test_a_failed_job_says_why_and_its_result_is_a_conflict(gateway: Gateway) -> None:
    wanted = {"task": "txt2img", "prompt": "zorg frob"}
    job = gateway.http.post("/v1/jobs", json=wanted, headers=WAIT).json()
    assert (job["state"], job["failure"]["code"]) == ("failed", "unknown_words")
    problem(gateway.http.get(job["result_url"]), 409, "unknown_words")


def test_a_canceled_job_is_gone_and_can_be_run_again(gateway: Gateway, client: Client) -> None:
    job = gateway.http.post("/v1/jobs", json=DRAW | {"expires_in_s": 0}, headers=WAIT).json()
    assert job["state"] == "expired"
    problem(gateway.http.get(job["result_url"]), 410, "expired")
    again = gateway.http.post(job["retry_url"])
    assert again.status_code == 202
    assert gateway.http.post(job["retry_url"]).json()["id"] == again.json()["id"] != job["id"]
    assert client.job(again.json()["id"]).result(60).seed == 7


def test_a_succeeded_job_is_not_run_again(gateway: Gateway, drawn: dict[str, Any]) -> None:
    problem(gateway.http.post(drawn["retry_url"]), 409, "wrong_state")


def test_a_deleted_job_is_gone_with_its_pictures(gateway: Gateway) -> None:
    job = gateway.http.post("/v1/jobs", json=DRAW, headers=WAIT).json()
    assert gateway.http.delete(job["status_url"]).status_code == 204
    problem(gateway.http.get(job["status_url"]), 404, "job_not_found")
    problem(gateway.http.get(job["result"]["images"][0]["url"]), 404, "blob_not_found")
    listed = gateway.http.get("/v1/jobs", params={"limit": 200}).json()["data"]
    assert job["id"] not in [other["id"] for other in listed]


def test_jobs_are_listed_page_by_page_the_latest_first(gateway: Gateway) -> None:
    made = [gateway.http.post("/v1/jobs", json=DRAW, headers=WAIT).json()["id"] for _ in range(5)]
    found: list[str] = []
    cursor = None
    while len(found) < 5:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = gateway.http.get("/v1/jobs", params=params).json()
        found += [job["id"] for job in page["data"]]
        cursor = page["next_cursor"]
    assert found[:5] == made[::-1]
    query = {"state": "failed", "task": "img2txt", "limit": "200"}
    failed = gateway.http.get("/v1/jobs", params=query)
    assert all(job["state"] == "failed" for job in failed.json()["data"])


def events(reply: httpx2.Response) -> Iterator[dict[str, str]]:
    """The events of a stream, as their fields."""
    event: dict[str, str] = {}
    for line in reply.iter_lines():
        if line.startswith(":"):
            continue
        if not line and event:
            yield event
            event = {}
        elif line:
            name, _, value = line.partition(": ")
            event[name] = value


def test_events_tell_every_step_and_end_with_the_job(gateway: Gateway) -> None:
    job = gateway.http.post("/v1/jobs", json=DRAW).json()
    with gateway.http.stream("GET", job["events_url"]) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        told = [event for event in events(reply) if event["event"] != "position"]
    states = [json.loads(event["data"])["state"] for event in told]
    assert states == ["queued", "running", "succeeded", "succeeded"]
    assert told[-1]["event"] == "end"
    assert json.loads(told[-1]["data"])["result"]["images"]
    after = {"Last-Event-ID": told[1]["id"]}
    with gateway.http.stream("GET", job["events_url"], headers=after) as reply:
        rest = [event["event"] for event in events(reply)]
    assert rest == ["state", "end"]
    reply = gateway.http.get(job["events_url"], headers={"Last-Event-ID": told[-1]["id"]})
    assert (reply.status_code, reply.content) == (204, b"")  # for EventSource to stop


def test_the_page_stream_tells_of_queues_and_jobs(gateway: Gateway) -> None:
    with gateway.http.stream("GET", "/v1/events") as reply:
        stream = events(reply)
        first = next(stream)
        assert first["event"] == "queues"
        shown = json.loads(first["data"])
        assert {q["queue"] for q in shown["queues"]} >= {"txt2img", "img2txt.bulk"}
        assert any("txt2img" in worker["queues"] for worker in shown["workers"])
        job = gateway.http.post("/v1/jobs", json=DRAW).json()
        for event in stream:
            told = json.loads(event["data"])
            if event["event"] == "job" and (told["id"], told["state"]) == (job["id"], "succeeded"):
                break


def test_a_file_of_requests_becomes_a_file_of_results(gateway: Gateway, picture: bytes) -> None:
    data = f"data:image/png;base64,{base64.urlsafe_b64encode(picture).decode()}"
    lines = [
        {"custom_id": "a", "url": "/v1/txt2img", "body": {"prompt": PROMPT, "seed": 7}},
        {"custom_id": "b", "url": "/v1/txt2img", "body": {"prompt": "zorg"}},
        {"custom_id": "c", "url": "/v1/img2txt", "body": {"image": {"path": "/etc/passwd"}}},
        {"custom_id": "d", "url": "/v1/txt2img", "body": {"prompt": PROMPT, "sede": 7}},
        {"custom_id": "e", "url": "/v1/img2txt", "body": {"image": {"data": data}}},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    kind = {"Content-Type": "application/jsonl"}
    reply = gateway.http.post("/v1/batches", content=text, headers=kind)
    assert reply.status_code == 202, reply.text
    batch = reply.json()
    assert (batch["task"], batch["request_counts"]["total"]) == (None, 5)
    until(lambda: _batch(gateway, batch)["status"] == "completed", 60, "the batch's end")
    assert _batch(gateway, batch)["request_counts"] == {"total": 5, "completed": 2, "failed": 3}
    rows = [json.loads(row) for row in gateway.http.get(batch["output_url"]).text.splitlines()]
    by_id = {row["custom_id"]: row for row in rows}
    assert by_id["a"]["response"]["body"]["images"][0]["width"] == 128
    assert by_id["b"]["error"]["code"] == "unknown_words"
    assert by_id["c"]["error"]["code"] == by_id["d"]["error"]["code"] == "invalid_params"
    assert "did you mean 'seed'?" in by_id["d"]["error"]["message"]
    assert "red circle" in by_id["e"]["response"]["body"]["captions"][0]["text"]


def _batch(gateway: Gateway, batch: dict[str, Any]) -> dict[str, Any]:
    return dict(gateway.http.get(batch["status_url"]).json())


def test_a_picture_of_this_machine_cannot_be_named_in_a_batch(
    gateway: Gateway, picture: bytes, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture)
    line = {"custom_id": "a", "url": "/v1/img2txt", "body": {"image": {"path": str(secret)}}}
    kind = {"Content-Type": "application/jsonl"}
    batch = gateway.http.post("/v1/batches", content=json.dumps(line), headers=kind).json()
    until(lambda: _batch(gateway, batch)["status"] == "completed", 60, "the batch's end")
    row = json.loads(gateway.http.get(batch["output_url"]).text)
    assert row["error"]["code"] in ("invalid_params", "blob_not_found")


def test_a_batch_goes_on_when_its_gateway_is_killed(
    stack: RunningStack, gateway: Gateway, tmp_path: Path
) -> None:
    lines = "\n".join(
        json.dumps({"custom_id": str(i), "url": "/v1/txt2img", "body": {"prompt": PROMPT}})
        for i in range(1_500)
    )
    kind = {"Content-Type": "application/jsonl"}
    with running_gateway(stack.env, tmp_path) as first:
        batch = first.http.post("/v1/batches", content=lines, headers=kind).json()
        first.child.kill()
    url = f"/v1/batches/{batch['id']}"
    until(lambda: gateway.http.get(url).json()["status"] == "completed", 120, "the batch's end")
    rows = gateway.http.get(f"{url}/output").text.splitlines()
    assert sorted(int(json.loads(row)["custom_id"]) for row in rows) == list(range(1_500))


def test_a_batch_whose_file_is_gone_is_given_up_and_told_to_its_owner(
    gateway: Gateway, client: Client
) -> None:
    line = json.dumps({"custom_id": "a", "url": "/v1/txt2img", "body": {"prompt": PROMPT}})
    batch = HttpBatch(id=new_job_id(), owner="", task=Task("txt2img"), total=1, created_at=1.0)
    client.run(HttpBatches(client.settings).open(batch))
    url = f"/v1/batches/{batch.id}"
    until(lambda: gateway.http.get(url).json()["status"] == "failed", 60, "its end")
    assert gateway.http.get(url).json()["failure"]["code"] == "blob_not_found"
    kind = {"Content-Type": "application/jsonl"}
    assert gateway.http.post("/v1/batches", content=line, headers=kind).status_code == 202


def test_a_record_that_cannot_be_read_does_not_end_the_streams(
    gateway: Gateway, client: Client
) -> None:
    with gateway.http.stream("GET", "/v1/events") as reply:
        stream = events(reply)
        next(stream)
        broken = client.txt2img(PROMPT).id
        client.redis.hset(job_key(client.settings.key_prefix, broken), "state", "nonsense")
        job = gateway.http.post("/v1/jobs", json=DRAW).json()
        for event in stream:
            if event["event"] == "job" and json.loads(event["data"])["id"] == job["id"]:
                break
    assert gateway.http.get("/v1/jobs").status_code == 200
    client.redis.delete(job_key(client.settings.key_prefix, broken))
    client.run(client.ledger.forget(broken, Task("txt2img")))


def test_queues_models_and_health_are_told(gateway: Gateway) -> None:
    queues = gateway.http.get("/v1/queues").json()
    assert {q["queue"] for q in queues["queues"]} >= {"txt2img", "img2txt"}
    [model] = gateway.http.get("/v1/models").json()["data"]
    assert (model["name"], model["devices"]) == ("scenes", ["cpu"])
    assert gateway.http.get("/livez").text == "ok\n"
    assert gateway.http.get("/readyz").text == "ok\n"


def test_pages_of_other_sites_and_other_names_are_refused(gateway: Gateway) -> None:
    other_site = {"Origin": "https://evil.example"}
    problem(gateway.http.post("/v1/jobs", json=DRAW, headers=other_site), 403, "forbidden")
    for host in ("evil.example", "["):
        problem(gateway.http.get("/v1/jobs", headers={"Host": host}), 403, "forbidden")
    for headers in ({"Origin": "http://["}, {"Sec-Fetch-Site": "cross-site"}):
        problem(gateway.http.get("/v1/jobs", headers=headers), 403, "forbidden")


def test_every_response_carries_its_security_headers(gateway: Gateway) -> None:
    for path in ("/", "/v1/queues", "/nothing"):
        headers = gateway.http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers


def test_a_gateway_whose_redis_is_away_says_so(tmp_path: Path, stack: RunningStack) -> None:
    env = {**stack.env, "CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}
    with running_gateway(env, tmp_path, until="/livez") as gateway:
        for reply in (gateway.http.get("/readyz"), gateway.http.post("/v1/jobs", json=DRAW)):
            problem(reply, 503, "broker_unavailable")
            assert int(reply.headers["retry-after"]) >= 1
