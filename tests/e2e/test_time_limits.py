"""Attempts that take too long, jobs that are canceled while they run, workers that hang."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from crossmodal.jobs.names import result_key
from crossmodal.jobs.record import JobState
from producer import BlobNotFound, BlobRef, Client, JobFailed
from tests.waiting import until
from tests.workers import alive, celery_worker, host_of, running_worker, suspended, tree_of
from worker.supervisor import make_folder

PROMPT = "a large red circle on a white background"
WAIT_S = 90
FREED_S = 5.0  # it takes half a second, and more on a busy machine; without it, much longer


def health(env: dict[str, str], *options: str) -> int:
    return subprocess.run(
        [sys.executable, "-m", "crossmodal.cli", "health", *options],
        env={**os.environ, **env},
        capture_output=True,
        check=False,
    ).returncode


def is_running(client: Client, job_id: str) -> bool:
    return client.status(job_id).state is JobState.RUNNING


def test_an_attempt_over_its_limit_is_interrupted_and_fails_after_the_last(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    env |= {"CROSSMODAL_TXT2IMG_RUN_TIME_LIMIT_S": "2", "CROSSMODAL_MAX_ATTEMPTS": "2"}
    with running_worker(env, tmp_path / "worker", 1):
        job = client.txt2img(f"{PROMPT} snail", seed=7)
        with pytest.raises(JobFailed) as caught:
            job.result(timeout_s=WAIT_S)
        assert caught.value.code == "timed_out"
        assert client.record(job.id).attempt == 2
        assert client.txt2img(PROMPT, seed=7).result(timeout_s=WAIT_S).attempt == 1


def test_waiting_for_the_device_uses_up_no_run_time(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    env |= {"CROSSMODAL_TXT2IMG_RUN_TIME_LIMIT_S": "8", "CROSSMODAL_MAX_BATCH": "1"}
    with running_worker(env, tmp_path / "worker", 6):
        jobs = [client.txt2img(f"{PROMPT} snail", seed=i) for i in range(6)]
        assert [job.result(timeout_s=WAIT_S).attempt for job in jobs] == [1] * 6


def test_a_canceled_job_frees_its_slot_while_its_batch_still_runs(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    with running_worker(env, tmp_path / "worker", 1) as worker:
        with suspended(host_of(worker)):
            first, second = client.txt2img(PROMPT, seed=1), client.txt2img(PROMPT, seed=2)
            until(lambda: is_running(client, first.id), WAIT_S)
            assert first.cancel() is JobState.CANCELED
            until(lambda: is_running(client, second.id), FREED_S, "the next job's start")
        assert second.result(timeout_s=WAIT_S).images
        assert first.status().state is JobState.CANCELED
        with pytest.raises(BlobNotFound):
            client.read(BlobRef(key=result_key(first.id, "0.png")))


def test_a_canceled_queued_job_never_runs(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    job = client.txt2img(PROMPT, seed=1)
    assert job.cancel() is JobState.CANCELED
    with running_worker(env, tmp_path / "worker", 1):
        assert client.txt2img(PROMPT, seed=2).result(timeout_s=WAIT_S).images
        until(lambda: client.redis.llen("txt2img") == 0, WAIT_S)
    assert client.record(job.id).attempt == 0


def test_what_celery_is_told_to_revoke_is_canceled(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    from celery import Celery

    with (
        running_worker(env, tmp_path / "worker", 1) as worker,
        Celery(broker=env["CELERY_BROKER_URL"]) as app,
    ):
        with suspended(host_of(worker)):
            first, second = client.txt2img(PROMPT, seed=1), client.txt2img(PROMPT, seed=2)
            until(lambda: is_running(client, first.id), WAIT_S)
            app.control.revoke(second.id)
        assert second.wait(timeout_s=WAIT_S) is JobState.CANCELED


def test_a_worker_that_does_not_consume_is_not_live_and_is_restarted(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    env |= {
        "CROSSMODAL_HEARTBEAT_S": "5",
        "CROSSMODAL_RUN_DIR": str(tmp_path / "run"),
        "CROSSMODAL_LEASE_S": "6",
    }
    with running_worker(env, tmp_path / "worker", 1) as worker:
        assert health(env, "--live") == health(env, "--ready") == 0
        stuck = celery_worker(worker)
        stuck.suspend()
        until(lambda: health(env, "--live") == 1, WAIT_S)
        until(lambda: not alive(stuck), WAIT_S)
        assert client.txt2img(PROMPT, seed=7).result(timeout_s=WAIT_S).images
        until(lambda: health(env, "--ready") == 0, WAIT_S)


def test_a_worker_whose_model_host_hangs_is_live_and_not_ready(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    env |= {
        "CROSSMODAL_HEARTBEAT_S": "5",
        "CROSSMODAL_INFERENCE_TIMEOUT_S": "8",
        "CROSSMODAL_RUN_DIR": str(tmp_path / "run"),
    }
    assert health(env, "--live") == 1  # there is none
    with running_worker(env, tmp_path / "worker", 1) as worker:
        stuck = host_of(worker)
        stuck.suspend()
        until(lambda: health(env, "--ready") == 1, WAIT_S)
        assert health(env, "--live") == 0
        until(lambda: not stuck.is_running(), WAIT_S)  # also no zombie whose threads still listen
        assert client.txt2img(PROMPT, seed=7).result(timeout_s=WAIT_S).attempt == 1
        assert health(env, "--ready") == 0


def test_nothing_outlives_a_killed_supervisor(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    env |= {"CROSSMODAL_LEASE_S": "6", "CROSSMODAL_RUN_DIR": str(run_dir)}
    with running_worker(env, tmp_path / "worker", 1) as worker:
        tree = tree_of(worker)
        host_of(worker).suspend()
        job = client.txt2img(PROMPT, seed=7)
        until(lambda: is_running(client, job.id), WAIT_S)
        psutil.Process(worker.pid).kill()
        until(lambda: not worker.is_alive)
        make_folder(run_dir)  # as the next supervisor does first: it removes the dead one's
        until(lambda: not any(alive(p) for p in tree), WAIT_S)
