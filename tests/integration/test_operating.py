"""An operator's verbs before a worker under load, over HTTP with keys, and as commands."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from crossmodal.jobs.origin import Origin
from crossmodal.jobs.record import JobState
from crossmodal.settings import Settings
from producer import Client, JobHandle
from producer.pictures.png import write_png
from tests.commands import run_command
from tests.gateway import in_thread
from tests.waiting import until
from tests.workers import environment, running_worker

CONCURRENCY = 4
WAIT_S = 60.0
IDEA = "a red circle"
PNG = write_png(b"\xff\0\0", 1, 1, 3)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


@pytest.fixture
def working(settings: Settings, client: Client, tmp_path: Path) -> Iterator[Client]:
    """A client of a worker with fake models."""
    with running_worker(environment(settings), tmp_path / "w", CONCURRENCY):
        yield client


def many(client: Client, owner: str, count: int, **options: Any) -> list[JobHandle]:
    return [
        client.submit("txt2img", prompt=IDEA, origin=Origin(owner), **options) for _ in range(count)
    ]


def states(client: Client, jobs: list[JobHandle]) -> Counter[JobState]:
    return Counter(client.record(job).state for job in jobs)


def test_under_load_a_paused_queue_starts_nothing_and_loses_nothing(working: Client) -> None:
    slow = working.txt2img("painter")
    until(lambda: slow.status().state is JobState.RUNNING, WAIT_S)
    jobs = [*many(working, "", 150), *many(working, "key", 150)]
    depth = working.pause("txt2img").depth
    jobs += many(working, "", 20)
    assert slow.result(WAIT_S).images  # what runs ends
    for _ in range(2):  # what others have is run meanwhile, more than once around
        working.submit("img2txt", image=slow.result().images[0]).result(WAIT_S)
    until(lambda: working.queue("txt2img").running == 0, WAIT_S)
    assert working.queue("txt2img").depth == depth + 20
    working.resume("txt2img")
    for job in working.as_completed(jobs, WAIT_S):
        assert job.result().images
    assert working.queue("txt2img").redelivered == 0  # no attempt was made and given up


def test_a_worker_that_starts_takes_nothing_of_a_paused_queue(
    settings: Settings, client: Client, tmp_path: Path
) -> None:
    client.pause("txt2img")
    [job] = many(client, "key", 1)
    with running_worker(environment(settings), tmp_path / "w", CONCURRENCY):
        drawn = client.submit("img2txt", image=client.upload(PNG))
        drawn.result(WAIT_S)
        assert client.record(job).state is JobState.QUEUED
        client.resume("txt2img")
        assert job.result(WAIT_S).attempt == 1


def test_keys_take_turns_whatever_is_paused_canceled_or_urgent(working: Client) -> None:
    heavy = many(working, "heavy", 1_000, priority=1)
    other = many(working, "other", 200, priority=-1)
    working.pause("txt2img")
    assert working.cancel_all("other") == states(working, other)[JobState.CANCELED]
    [light] = many(working, "light", 1, priority=-1)
    ended = states(working, heavy)[JobState.SUCCEEDED]
    working.resume("txt2img")
    light.result(WAIT_S)
    begun = working.record(light).started_at or 0.0
    before = sum((working.record(job).started_at or begun) < begun for job in heavy) - ended
    # A batch's worth lay in the queue, and as much again was in the worker's hands.
    assert before <= working.settings.max_batch + 2 * CONCURRENCY
    for job in working.as_completed(heavy, WAIT_S):
        assert job.result().images
    assert set(states(working, other)) <= {JobState.CANCELED, JobState.SUCCEEDED}


# -- over HTTP ----------------------------------------------------------------------------


@contextmanager
def calling(settings: Settings, *, needs_keys: bool = False) -> Iterator[httpx2.Client]:
    with (
        in_thread(settings, needs_keys=needs_keys) as url,
        httpx2.Client(base_url=url, timeout=30) as http,
    ):
        yield http


def bearer(client: Client, **options: Any) -> dict[str, str]:
    _, token = client.keys.create("test", **options)
    return {"Authorization": f"Bearer {token}"}


def test_an_operators_key_pauses_and_resumes_and_no_other_does(
    settings: Settings, client: Client
) -> None:
    operator = {"is_operator": True}
    with calling(settings, needs_keys=True) as http:
        for headers, status in ((bearer(client), 403), (bearer(client, **operator), 200)):
            told = http.get("/v1/queues", headers=headers).json()
            assert told["may_pause"] is (status == 200)
            reply = http.post("/v1/queues/txt2img/pause", headers=headers)
            assert reply.status_code == status
        assert reply.json()["paused"] is True
        assert http.post("/v1/queues/txt2imf/pause", headers=headers).status_code == 404
        reply = http.post("/v1/queues/txt2img/resume", headers=headers)
        assert reply.json()["paused"] is False


def test_a_queue_that_refuses_while_it_is_paused_answers_503(
    settings: Settings, client: Client
) -> None:
    client.pause("txt2img")
    with calling(settings.model_copy(update={"paused_queues_accept": False})) as http:
        reply = http.post("/v1/jobs", json={"task": "txt2img", "prompt": IDEA})
        assert (reply.status_code, reply.json()["code"]) == (503, "queue_paused")
        assert reply.headers["retry-after"] == "60"


@pytest.mark.parametrize("path", ["/v1/images/generations", "/sdapi/v1/txt2img"])
def test_nobody_holds_a_connection_for_a_queue_that_is_paused(
    settings: Settings, client: Client, path: str
) -> None:
    client.pause("txt2img")
    with calling(settings) as http:
        reply = http.post(path, json={"prompt": IDEA})
        assert reply.status_code in (429, 503)
        assert (reply.headers["retry-after"], client.queue("txt2img").depth) == ("60", 0)


def test_a_key_cancels_its_own_jobs_and_an_operators_those_of_all(
    settings: Settings, client: Client
) -> None:
    mine, theirs, operator = bearer(client), bearer(client), bearer(client, is_operator=True)
    draw = {"task": "txt2img", "prompt": IDEA, "priority": 1, "keep_s": 60}
    with calling(settings, needs_keys=True) as http:

        def cancel(headers: dict[str, str], **body: Any) -> Any:
            reply = http.post("/v1/jobs/cancel", json=body, headers=headers)
            return reply.json().get("canceled", reply.status_code)

        for headers in (mine, mine, theirs):
            reply = http.post("/v1/jobs", json=draw, headers=headers)
            assert reply.status_code == 202
        owner = client.record(reply.json()["id"]).owner
        assert cancel(mine, state="running") == 0
        assert cancel(mine, key=owner) == 403
        assert cancel(mine, key="*") == 403
        assert cancel(mine, stat="queued") == 422
        assert cancel(mine, model="turbo") == 422
        ended = http.post("/v1/jobs/cancel", json={"state": "failed"}, headers=mine)
        assert ended.json()["detail"] == "state: Input should be 'queued' or 'running'"
        assert cancel(mine) == 2
        assert cancel(operator) == 0
        assert cancel(operator, key=owner) == 1
        assert cancel(operator, key="*") == 0


@pytest.mark.parametrize("wrong", [{"priority": 2}, {"priority": "1"}, {"keep_s": 0.5}])
def test_what_no_job_may_have_is_refused(settings: Settings, wrong: dict[str, Any]) -> None:
    with calling(settings) as http:
        reply = http.post("/v1/jobs", json={"task": "txt2img", "prompt": IDEA, **wrong})
        assert reply.status_code == 422
        [name] = wrong
        assert name in reply.json()["detail"]


# -- as commands --------------------------------------------------------------------------


def test_the_commands_pause_cancel_and_resume(settings: Settings, client: Client) -> None:
    env = environment(settings)
    job = run_command(env, "txt2img", IDEA, "--no-wait", "--priority", "1", "--keep", "60")
    record = client.record(job.stdout.strip())
    assert (record.priority, record.keep_s) == (1, 60.0)
    paused = run_command(env, "pause", "txt2img", "img2txt")
    assert paused.stdout.splitlines()[0] == "txt2img is paused: 1 wait, 0 run"
    assert "txt2img (paused)" in run_command(env, "queue").stdout
    wrong = run_command(env, "cancel", "--all", "--state", "failed")
    assert wrong.returncode == 2
    canceled = run_command(env, "cancel", "--all", "--task", "txt2img", "--json")
    assert json.loads(canceled.stdout) == {"canceled": 1}
    resumed = run_command(env, "resume", "txt2img", "--json")
    assert [one["paused"] for one in json.loads(resumed.stdout)] == [False]
    assert run_command(env, "resume", "nonesuch").returncode == 2
