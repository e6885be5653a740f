"""`crossmodal autoscale` on real parts: from no worker to two and back, none stopped in mid-job."""

import io
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest
from PIL import Image

from crossmodal.jobs.record import JobState
from crossmodal.local.stack import Stack
from crossmodal.local.valkey import free_port
from crossmodal.processes import Child
from producer import Client
from tests.conftest import settings_of, stack_environment
from tests.exposition import problems_of, scrape, value
from tests.servers import start_server
from tests.waiting import until

pytestmark = pytest.mark.slow

START_S = 150
JOBS = 30  # of each task
OPTIONS = [
    "--devices",
    "cpu",
    "--max",
    "2",
    "--target-wait",
    "1",
    "--cooldown",
    "3",
    "--interval",
    "0.5",
]
WORKER_OPTIONS = ["--queues", "txt2img,img2txt", "--concurrency", "2"]


@dataclass(frozen=True)
class Running:
    scaler: Child
    client: Client
    port: int
    log: Path

    def scrape(self) -> str:
        return scrape(self.port)

    def value(self, name: str, **labels: str) -> float:
        return value(self.scrape(), name, **labels)

    def workers(self) -> list[psutil.Process]:
        """The supervisors that the scaler has started."""
        return psutil.Process(self.scaler.pid).children()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    metrics_port = free_port()
    server = start_server(tmp_path / "valkey")
    env = stack_environment(server.port, tmp_path) | {
        "CROSSMODAL_RUN_DIR": str(tmp_path / "run"),
        "CROSSMODAL_LOG_FORMAT": "json",
    }
    log = tmp_path / "log"
    with ExitStack() as cleanup:
        stack = cleanup.enter_context(Stack(env, cleanup.enter_context(log.open("wb"))))
        argv = [
            sys.executable,
            "-m",
            "crossmodal.cli",
            "autoscale",
            *OPTIONS,
            "--metrics-port",
            str(metrics_port),
            "--",
            *WORKER_OPTIONS,
        ]
        scaler = stack.start("autoscale", argv, 60)
        client = cleanup.enter_context(Client(settings_of(env)))
        until(lambda: answers(metrics_port), what="a scaler")
        yield Running(scaler, client, metrics_port, log)
    server.stop()


def answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10):
            return True
    except OSError:
        return False


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "PNG")
    return file.getvalue()


def test_from_none_to_two_and_back_and_no_job_is_stopped(running: Running) -> None:
    client = running.client
    assert running.workers() == []
    png = picture()
    jobs = [client.txt2img(f"a red circle {i}") for i in range(JOBS)]
    jobs += [client.img2txt(png) for _ in range(JOBS)]
    until(lambda: len(running.workers()) == 2, what="two workers")
    assert running.value("crossmodal_autoscale_wanted_workers") == 2
    ended = list(client.as_completed(jobs, timeout_s=START_S))
    assert problems_of(running.scrape()) == []
    until(lambda: running.workers() == [], START_S, "the last worker's end")
    records = [client.record(job.id) for job in ended]
    assert {(record.state, record.attempt) for record in records} == {(JobState.SUCCEEDED, 1)}
    assert sum(queue.redelivered for queue in client.queues()) == 0
    # The second one may be let go before it is ready, on a slow machine.
    drained = running.value("crossmodal_autoscale_ended_total", how="drained")
    assert drained >= 1
    unused = running.value("crossmodal_autoscale_ended_total", how="unused")
    assert drained + unused == running.value("crossmodal_autoscale_ended_total") == 2
    running.scaler.stop(60)
    assert running.scaler.returncode == 0
    statuses = re.findall(r"has drained: status (-?\d+)", running.log.read_text())
    assert statuses == ["0"] * int(drained)
