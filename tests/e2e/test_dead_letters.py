"""Garbage and poison: set aside or found out, while everything beside it succeeds."""

import base64
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from crossmodal.jobs.dead import MAX_RAW
from crossmodal.jobs.message import message_of
from crossmodal.jobs.names import new_job_id
from crossmodal.jobs.record import DeadLetter, JobState
from crossmodal.kinds.txt2img import Txt2ImgParams
from producer import Client, JobFailed
from tests.integration.test_main_job import is_known
from tests.servers import Server
from tests.waiting import until
from tests.workers import celery_worker, host_of, running_worker, suspended

PROMPT = "a large red circle on a white background"
WAIT_S = 90
PARAMS = Txt2ImgParams(prompt=PROMPT, seed=7)


def envelope(**headers: Any) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(message_of(new_job_id(), PARAMS))
    message["headers"].update(headers)
    return message


def body_of(kwargs: dict[str, Any]) -> str:
    return base64.b64encode(json.dumps([[], kwargs, {}]).encode()).decode()


def without(*path: str) -> str:
    message = inner = envelope()
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return json.dumps(message)


GARBAGE: dict[str, tuple[bytes | str, str]] = {
    "not JSON": ("hello", "invalid_message"),
    "not text": (b"\xff\xfe\x00\x80", "invalid_message"),
    "empty": ("", "invalid_message"),
    "not a map": ("[1, 2]", "invalid_message"),
    "deeply nested": ("[" * 100_000, "invalid_message"),
    "no properties": (without("properties"), "invalid_message"),
    "no delivery tag": (without("properties", "delivery_tag"), "invalid_message"),
    "no routing key": (without("properties", "delivery_info", "routing_key"), "invalid_message"),
    "an id that is a path": (json.dumps(envelope(id="../../x")), "invalid_message"),
    "no id": (without("headers", "id"), "invalid_message"),
    "body that is no base64": (json.dumps(envelope() | {"body": "é"}), "invalid_message"),
    "body that is no call": (json.dumps(envelope() | {"body": "e30="}), "invalid_message"),
    "a pickle": (
        json.dumps(envelope() | {"content-type": "application/x-python-serialize"}),
        "invalid_message",
    ),
    "an eta that is no time": (json.dumps(envelope(eta="soon")), "invalid_message"),
    "a time limit that is no number": (json.dumps(envelope(timelimit=["x", 1])), "invalid_message"),
    "stamps that are none": (json.dumps(envelope(stamped_headers=5)), "invalid_message"),
    "headers that are none": (json.dumps(envelope(headers="x")), "invalid_message"),
    "compressed": (json.dumps(envelope(compression="application/x-gzip")), "invalid_message"),
    "arguments that Celery cannot decode": (
        json.dumps(
            envelope()
            | {"body": body_of({"prompt": {"__type__": "datetime", "__value__": "garbage"}})}
        ),
        "invalid_message",
    ),
    "an argument called self": (
        json.dumps(envelope() | {"body": body_of({"self": 1})}),
        "invalid_message",
    ),
    "a builtin task": (json.dumps(envelope(task="celery.backend_cleanup")), "unknown_task"),
    "an unknown task": (json.dumps(envelope(task="somebody.elses")), "unknown_task"),
    "too large": (json.dumps(envelope() | {"padding": "x" * 50_000_000}), "invalid_message"),
}


def letters(client: Client) -> list[DeadLetter]:
    return list(client.dead_letters.list())


def crossmodal(env: dict[str, str], *args: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "crossmodal.cli", *args, "--json"],
        env={"PATH": "/usr/bin:/bin", **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_garbage_is_set_aside_with_its_bytes_and_the_worker_lives_on(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    with running_worker(env, tmp_path / "worker", 2) as worker:
        before = celery_worker(worker).pid
        for raw, _ in GARBAGE.values():
            client.redis.lpush("txt2img", raw)
        for raw in ("{}", "5", "[1]", "null", '{"body":null,"properties":{}}'):
            client.redis.publish("/0.celery.pidbox", raw)
        assert client.txt2img(PROMPT, seed=7).result(timeout_s=WAIT_S).attempt == 1
        until(lambda: len(letters(client)) == len(GARBAGE), WAIT_S)
        assert celery_worker(worker).pid == before
        found = {letter.raw: letter for letter in letters(client)}
        for name, (raw, code) in GARBAGE.items():
            whole = raw.encode() if isinstance(raw, str) else raw
            letter = found[whole[:MAX_RAW]]
            assert (letter.code, letter.size, letter.queue) == (code, len(whole), "txt2img"), name
        assert client.txt2img(PROMPT, seed=7).result(timeout_s=WAIT_S).attempt == 1


def test_a_queued_job_whose_message_is_garbage_fails_with_a_code(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    job = client.txt2img(PROMPT, seed=7)
    raw = client.redis.rpop("txt2img")
    client.redis.lpush("txt2img", raw.replace('"crossmodal.txt2img"', '"crossmodal.gone"'))
    with running_worker(env, tmp_path / "worker", 1):
        with pytest.raises(JobFailed) as caught:
            job.result(timeout_s=WAIT_S)
        assert caught.value.code == "unknown_task"
        until(lambda: any(letter.raw for letter in letters(client)), WAIT_S)  # after its job's end
        [letter] = letters(client)
        assert letter.id == job.id
        assert b"crossmodal.gone" in (letter.raw or b"")
        replayed = crossmodal(env, "dead", "replay", job.id)[job.id]
        assert client.job(replayed).result(timeout_s=WAIT_S).seed == 7


def test_a_message_for_which_redis_has_no_memory_waits_in_the_worker(
    env: dict[str, str], client: Client, server: Server, tmp_path: Path
) -> None:
    from celery import Celery

    with running_worker(env, tmp_path / "worker", 2) as worker:
        before = celery_worker(worker)
        call = {"name": "crossmodal.txt2img", "kwargs": {"prompt": PROMPT}, "queue": "txt2img"}
        with suspended(before):
            with Celery(broker=env["CELERY_BROKER_URL"]) as app:
                sent = [app.send_task(**call).id for _ in range(8)]  # no record, only a message
            with server.admin() as redis:
                redis.config_set("maxmemory", 1)
        log = tmp_path / "worker" / "log"
        until(lambda: b"refuses to deliver messages for now" in log.read_bytes(), WAIT_S)
        with server.admin() as redis:
            redis.config_set("maxmemory", 0)
        until(lambda: all(is_known(client, job_id) for job_id in sent), WAIT_S)
        for job_id in sent:
            assert client.job(job_id).result(timeout_s=WAIT_S).images
        assert celery_worker(worker).pid == before.pid


def test_a_damaged_copy_of_a_message_does_no_harm(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    job = client.txt2img(PROMPT, seed=7)
    [message] = client.redis.lrange("txt2img", 0, -1)
    client.redis.rpush("txt2img", message[:-20])  # taken first
    with running_worker(env, tmp_path / "worker", 1):
        assert job.result(timeout_s=WAIT_S).attempt == 1
        assert [letter.code for letter in letters(client)] == ["invalid_message"]


def test_workers_answer_to_those_who_look_through_the_same_application(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    with running_worker(env, tmp_path / "worker", 1):
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "worker.app", "status", "--timeout", "15"],
            env={"PATH": "/usr/bin:/bin", **env},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "1 node online" in done.stdout
        assert letters(client) == []


def test_wrong_arguments_are_dead_letters(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    from celery import Celery

    bad: list[dict[str, object]] = [{"prompt": PROMPT, "count": "many"}, {}]
    with running_worker(env, tmp_path / "worker", 1):
        with Celery(broker=env["CELERY_BROKER_URL"]) as app:
            sent = [app.send_task("crossmodal.txt2img", kwargs=kwargs) for kwargs in bad]
        until(lambda: len(letters(client)) == len(bad), WAIT_S)
        for letter in letters(client):
            assert letter.code == "invalid_params"
            assert letter.job is not None
            assert letter.job.params == bad[[s.id for s in sent].index(letter.id)]


def test_a_plain_message_that_comes_too_late_is_an_expired_job(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    from celery import Celery

    with Celery(broker=env["CELERY_BROKER_URL"]) as app:
        call = {"name": "crossmodal.txt2img", "kwargs": {"prompt": PROMPT}, "queue": "txt2img"}
        late = app.send_task(expires=datetime(2020, 1, 1, tzinfo=UTC), **call)
        soon = app.send_task(expires=3_600, **call)
    with running_worker(env, tmp_path / "worker", 1):
        until(lambda: client.redis.llen("txt2img") == 0, WAIT_S)
        until(lambda: is_known(client, late.id) and is_known(client, soon.id), WAIT_S)
        assert client.job(soon.id).result(timeout_s=WAIT_S).images
        assert client.job(late.id).wait(timeout_s=WAIT_S) is JobState.EXPIRED


def test_dead_letters_are_listed_shown_replayed_and_dropped(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    with running_worker(env | {"CROSSMODAL_MAX_ATTEMPTS": "1"}, tmp_path / "worker", 1) as worker:
        with suspended(host_of(worker)):
            job = client.txt2img(PROMPT, seed=7)
            until(lambda: job.status().state is JobState.RUNNING, WAIT_S)
            celery_worker(worker).kill()
            assert job.wait(timeout_s=WAIT_S) is JobState.FAILED
        [listed] = crossmodal(env, "dead", "list", "--code", "worker_lost")
        assert listed["id"] == job.id
        shown = crossmodal(env, "dead", "show", job.id)
        assert shown["job"]["params"]["prompt"] == PROMPT
        assert [e["state"] for e in shown["history"]] == ["queued", "running", "queued", "failed"]
        replayed = crossmodal(env, "dead", "replay", job.id)[job.id]
        assert client.job(replayed).result(timeout_s=WAIT_S).seed == 7
        assert crossmodal(env, "dead", "list") == []
        client.redis.lpush("txt2img", "hello")
        until(lambda: len(letters(client)) == 1, WAIT_S)
        assert len(crossmodal(env, "dead", "drop", "--all")) == 1
        assert letters(client) == []


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("tarpit", "model_host_crashed"),
        ("glutton", "gpu_out_of_memory"),
        ("breaker", "model_host_crashed"),
    ],
)
def test_the_culprit_of_a_batch_is_found_and_its_mates_succeed(
    env: dict[str, str], client: Client, tmp_path: Path, word: str, code: str
) -> None:
    env |= {"CROSSMODAL_INFERENCE_TIMEOUT_S": "4"}
    with running_worker(env, tmp_path / "worker", 8) as worker:
        with suspended(host_of(worker)):  # so that the culprit shares its first batch
            mates = [client.txt2img(PROMPT, seed=i) for i in range(7)]
            culprit = client.txt2img(f"{PROMPT} {word}", seed=7)
            until(lambda: culprit.status().state is JobState.RUNNING, WAIT_S)
        mates += [client.txt2img(PROMPT, seed=i) for i in range(20)]
        assert culprit.wait(timeout_s=2 * WAIT_S) is JobState.FAILED
        for mate in mates:
            assert mate.result(timeout_s=WAIT_S).images
    [letter] = letters(client)
    assert (letter.id, letter.code) == (culprit.id, code)
