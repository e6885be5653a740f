"""Leases: long jobs keep theirs, dead workers lose theirs, and no job is run twice at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from crossmodal.jobs.record import JobState
from producer import Client
from tests.e2e.conftest import LEASE_S
from tests.waiting import until
from tests.workers import host_of, running_worker

PROMPT = "a large red circle on a white background"
WAIT_S = 90


def is_live(env: dict[str, str]) -> bool:
    command = [sys.executable, "-m", "crossmodal.cli", "health", "--live"]
    return subprocess.run(command, env={**os.environ, **env}, check=False).returncode == 0


def outlive_the_lease(client: Client, job_id: str) -> None:
    """Let a lease and a half go by, all the while with the first attempt running."""
    deadline = time.monotonic() + 1.5 * LEASE_S
    until(lambda: time.monotonic() > deadline or client.status(job_id).attempt > 1)
    assert (client.status(job_id).state, client.status(job_id).attempt) == (JobState.RUNNING, 1)


def test_a_draining_worker_keeps_its_leases_and_is_live(
    short: dict[str, str], client: Client, tmp_path: Path
) -> None:
    short |= {"CROSSMODAL_HEARTBEAT_S": "5", "CROSSMODAL_RUN_DIR": str(tmp_path / "run")}
    with running_worker(short, tmp_path / "one", 1) as one:
        host = host_of(one)
        host.suspend()
        job = client.txt2img(PROMPT, seed=7)
        until(lambda: job.status().state is JobState.RUNNING, WAIT_S)
        with running_worker(short, tmp_path / "two", 1):
            one.send(signal.SIGTERM)
            until(lambda: b"draining" in (tmp_path / "one" / "log").read_bytes(), WAIT_S)
            outlive_the_lease(client, job.id)
            assert is_live(short)
            host.resume()
            assert job.result(timeout_s=WAIT_S).attempt == 1
            assert one.wait(WAIT_S)
            assert one.returncode == 0
