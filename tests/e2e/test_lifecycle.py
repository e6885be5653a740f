"""Workers that come and go: stacks of their own, started and stopped here."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from crossmodal.jobs.record import JobState
from crossmodal.local.stack import Stack
from crossmodal.local.valkey import free_port, valkey_url
from crossmodal.processes import Child
from producer import Client, JobHandle
from tests.fakes.worker import HOST
from tests.integration.test_main_job import is_known
from tests.servers import Server
from tests.waiting import until
from tests.workers import celery_worker, host_of, running_worker, suspended, tree_of

PROMPT = "a large red circle on a white background"
WAIT_S = 90


def store(folder: Path) -> dict[str, str]:
    return {"CROSSMODAL_STORAGE_URL": (folder / "storage").as_uri()}


def states(jobs: list[JobHandle]) -> list[JobState]:
    return [job.status().state for job in jobs]


def terminate(worker: Child, number: signal.Signals = signal.SIGTERM) -> int | None:
    worker.send(number)
    assert worker.wait(WAIT_S)
    return worker.returncode


def drain(worker: Child, log: Path) -> None:
    """Tell it to stop, and return once it takes nothing more."""
    worker.send(signal.SIGTERM)
    until(lambda: b"draining" in log.read_bytes(), WAIT_S)


def test_sigterm_finishes_fifty_running_jobs(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    with running_worker(env, tmp_path / "worker", 50) as worker:
        tree = tree_of(worker)
        with suspended(host_of(worker)):  # they run until we say so
            jobs = [client.txt2img(PROMPT, count=16, seed=i) for i in range(50)]
            until(lambda: states(jobs) == [JobState.RUNNING] * 50, WAIT_S, "starting of all jobs")
            drain(worker, tmp_path / "worker" / "log")
        assert worker.wait(WAIT_S)
        assert worker.returncode == 0
        assert states(jobs) == [JobState.SUCCEEDED] * 50
        assert not [p for p in tree if p.is_running()]


def test_a_worker_that_dies_while_it_drains_has_not_finished_everything(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    with running_worker(env, tmp_path / "worker", 1) as worker:
        host, celery = host_of(worker), celery_worker(worker)
        host.suspend()  # the job runs until we say so
        job = client.txt2img(PROMPT, seed=7)
        until(lambda: job.status().state is JobState.RUNNING, WAIT_S)
        worker.send(signal.SIGTERM)
        celery.kill()
        assert worker.wait(WAIT_S)
        assert worker.returncode == 1


def test_what_a_drained_worker_left_is_done_by_the_next_with_the_same_bytes(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    with running_worker(env, tmp_path / "first", 4) as worker:
        before = client.txt2img(PROMPT, seed=7).result(timeout_s=WAIT_S).images[0].sha256
        with suspended(host_of(worker)):
            jobs = [client.txt2img(PROMPT, count=16, seed=7) for _ in range(40)]
            until(lambda: states(jobs).count(JobState.RUNNING) == 4, WAIT_S)
            drain(worker, tmp_path / "first" / "log")
        assert worker.wait(WAIT_S)
        assert worker.returncode == 0
    left = states(jobs)
    assert (left.count(JobState.SUCCEEDED), left.count(JobState.QUEUED)) == (4, 36)
    with running_worker(env, tmp_path / "second", 4):
        for job in jobs:
            result = job.result(timeout_s=WAIT_S)
            assert (result.images[0].sha256, result.attempt) == (before, 1)


def test_a_second_sigterm_stops_at_once_and_costs_no_attempt(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    env |= {"CROSSMODAL_MAX_ATTEMPTS": "1"}
    with running_worker(env, tmp_path / "first", 4) as worker:
        tree = tree_of(worker)
        host_of(worker).suspend()  # nothing that runs can finish by itself
        jobs = [client.txt2img(PROMPT, count=16, seed=i) for i in range(30)]
        until(lambda: states(jobs).count(JobState.RUNNING) == 4, WAIT_S)
        drain(worker, tmp_path / "first" / "log")
        assert terminate(worker) == 1
        assert not [p for p in tree if p.is_running()]
    with running_worker(env, tmp_path / "second", 4):
        for job in jobs:
            assert len(job.result(timeout_s=WAIT_S).images) == 16


def test_a_server_that_keeps_nothing_is_warned_of_at_start(
    env: dict[str, str], server: Server, tmp_path: Path
) -> None:
    with server.admin() as redis:
        redis.config_set("appendonly", "no")
        redis.config_set("maxmemory-policy", "allkeys-lru")
    env["CELERY_BROKER_URL"] = server.admin_url  # who has no right to ask is told another thing
    with running_worker(env, tmp_path / "worker", 1):
        log = (tmp_path / "worker" / "log").read_text()
    assert "jobs can be lost: maxmemory-policy is allkeys-lru" in log
    assert "jobs can be lost: the server keeps nothing on disk" in log


def test_a_plain_celery_worker_says_that_its_host_is_missing_and_works_once_it_is_there(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "host.sock"
    backend = env["CELERY_BROKER_URL"].replace("/0", "/1")
    env = {
        **os.environ,
        **env,
        "CROSSMODAL_HOST_SOCKET": str(path),
        "CELERY_RESULT_BACKEND": backend,
    }
    log = tmp_path / "log"
    with log.open("wb") as output, Stack(env, output) as stack:
        start = [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "-c", "2"]
        worker = Child("celery", [*start, "--loglevel", "INFO"], env, output)
        worker.start()
        stack.add(worker, 30)
        until(lambda: b"no model host is at" in log.read_bytes(), WAIT_S, "the warning")
        assert str(path).encode() in log.read_bytes()
        program = (
            "from celery import Celery; "
            f"app = Celery(broker={env['CELERY_BROKER_URL']!r}, backend={backend!r}); "
            f"sent = app.send_task('crossmodal.txt2img', kwargs={{'prompt': {PROMPT!r}}}); "
            "print(sent.id, flush=True); print(sent.get(timeout=60)['images'][0]['key'])"
        )
        sender = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
        )
        assert sender.stdout is not None
        job_id = sender.stdout.readline().strip()
        until(lambda: is_known(client, job_id), WAIT_S, "the record")
        host = Child("host", [sys.executable, "-m", HOST, "--socket", str(path)], env, output)
        host.start()
        stack.add(host, 30)
        assert client.job(job_id).result(timeout_s=WAIT_S).images
        assert f"results/{job_id}/0.png" in sender.communicate(timeout=60)[0]


def test_up_says_a_line_for_each_thing_that_is_ready_and_ctrl_c_ends_all(tmp_path: Path) -> None:
    port, flower, gateway = free_port(), free_port(), free_port()
    env = {
        **os.environ,
        "CELERY_BROKER_URL": valkey_url(port),
        **store(tmp_path),
        "XDG_DATA_HOME": str(tmp_path),
        "FLOWER_PORT": str(flower),
        "CROSSMODAL_GATEWAY_PORT": str(gateway),
    }
    command = [sys.executable, "-m", "crossmodal.cli", "up", "--devices", "cpu"]
    with (tmp_path / "log").open("wb") as log:
        up = Child("up", command, env, log)
        up.start()
    try:
        said = tmp_path / "log"
        until(lambda: b"try  crossmodal" in said.read_bytes() or not up.is_alive, WAIT_S)
        tree = tree_of(up)
        assert _listens(flower)
        assert _listens(gateway)
        with Client(broker_url=valkey_url(port), storage_url=env["CROSSMODAL_STORAGE_URL"]) as c:
            assert c.txt2img(PROMPT, seed=7).result(timeout_s=WAIT_S).images
        lines = said.read_text().splitlines()
        names = {"queue", "store", "page", "API", "background", "flower", "worker", "logs"}
        assert {line.split()[0] for line in lines} == names | {"ready", "try"}
        assert len(lines) == 10  # none of them about the job, which is in the worker's log
        page = f"http://127.0.0.1:{gateway}"
        api = f"{page}/v1, described at {page}/docs"
        assert {f"page        {page}", f"API         {api}"} <= set(lines)
        assert "worker      cpu: scenes " in said.read_text()
        [logs] = [line.split()[1] for line in lines if line.startswith("logs")]
        kept = Path(logs) / "worker.log"
        until(lambda: "succeeded" in kept.read_text(), WAIT_S, "what the worker logs of the job")

        again = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert (again.returncode, again.stdout) == (1, "")
        told = " ".join(again.stderr.split())
        assert told.startswith(
            f"error already_running a `crossmodal up` is already running for {valkey_url(port)}"
        )
        assert (f"process {up.pid}" in told, page in told) == (True, True)
        assert tree_of(up) == tree

        assert terminate(up, signal.SIGINT) == 0
        assert not [p for p in tree if p.is_running()]
    finally:
        up.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_standard_output_of_up_is_json_alone(tmp_path: Path) -> None:
    env = {
        **os.environ,
        "CELERY_BROKER_URL": valkey_url(free_port()),
        **store(tmp_path),
        "XDG_DATA_HOME": str(tmp_path),
    }
    command = [sys.executable, "-m", "crossmodal.cli", "up", "--devices", "cpu", "-v", "--json"]
    with (tmp_path / "log").open("wb") as log:
        up = subprocess.Popen(
            [*command, "--no-flower", "--no-gateway"],
            env=env,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert up.stdout is not None
    try:
        printed = json.loads("".join(iter(up.stdout.readline, "}\n")) + "}")
        assert (printed["queue"], printed["pid"]) == (env["CELERY_BROKER_URL"], up.pid)
        assert [worker["device"] for worker in printed["worker"]] == ["cpu"]
        assert (printed["page"], printed["flower"], printed["logs"]) == (None, None, None)
        assert b"started host cpu" in (tmp_path / "log").read_bytes()  # which -v asked for
    finally:
        up.send_signal(signal.SIGTERM)
        rest, _ = up.communicate(timeout=WAIT_S)
    assert rest == ""
