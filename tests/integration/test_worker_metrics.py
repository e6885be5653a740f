"""What a worker's processes count, as Prometheus reads it from their supervisor."""

import io
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from PIL import Image

from crossmodal.jobs.record import JobState
from crossmodal.local.valkey import free_port
from crossmodal.processes import Child
from producer import Client
from tests.conftest import RunningStack, need, settings_of, stack_environment
from tests.exposition import problems_of, scrape, value
from tests.servers import start_server
from tests.waiting import until
from tests.workers import celery_worker, host_of, running_worker, suspended

PROMPT = "a large red circle on a white background"
WAIT_S = 90
JOBS = 10  # of each task
TASKS = ("txt2img", "img2txt")


@dataclass(frozen=True)
class Worker:
    """A worker that serves metrics, and the folder that its processes write them to."""

    child: Child
    port: int
    folder: Path

    def scrape(self) -> str:
        return scrape(self.port)

    def value(self, name: str, **labels: str) -> float:
        return value(self.scrape(), name, **labels)

    def files(self) -> set[str]:
        return {file.name for file in (self.folder / "metrics").glob("*.db")}

    def celery(self) -> psutil.Process:
        return celery_worker(self.child)

    def host(self) -> psutil.Process:
        return host_of(self.child)


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("metrics")
    server = start_server(folder / "valkey")
    yield stack_environment(server.port, folder) | {
        "CROSSMODAL_RUN_DIR": str(folder / "run"),
        "CROSSMODAL_LEASE_S": "6",
        "CROSSMODAL_SWEEP_S": "1",
    }
    server.stop()


@pytest.fixture(scope="module")
def worker(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder, port = tmp_path_factory.mktemp("metrics") / "worker", free_port()
    with running_worker(env | {"CROSSMODAL_METRICS_PORT": str(port)}, folder, 4) as child:
        yield Worker(child, port, Path(env["CROSSMODAL_RUN_DIR"], str(child.pid)))


@pytest.fixture(scope="module")
def client(env: dict[str, str]) -> Iterator[Client]:
    with Client(settings_of(env)) as client:
        yield client


def run_jobs(client: Client, count: int) -> None:
    """`count` jobs of each task, to their end."""
    png = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(png, "PNG")
    picture = client.upload(png.getvalue())
    jobs = [client.txt2img(PROMPT, seed=i) for i in range(count)]
    jobs += [client.img2txt(picture) for _ in range(count)]
    for job in jobs:
        job.result(timeout_s=WAIT_S)


ONCE_A_JOB = ("queue_wait_seconds_count", "job_seconds_count", "store_seconds_count")
ON_THE_DEVICE = ("batch_wait_seconds_count", "batch_size_sum")


def counted(worker: Worker, names: tuple[str, ...]) -> dict[str, tuple[float, ...]]:
    """What has been counted of both tasks, by metric; also the items that succeeded."""
    found = {
        name: tuple(worker.value(f"crossmodal_{name}", task=task) for task in TASKS)
        for name in names
    }
    return found | {
        "items": tuple(
            worker.value("crossmodal_items_total", task=task, outcome="succeeded") for task in TASKS
        )
    }


def assert_more(
    worker: Worker, before: dict[str, tuple[float, ...]], txt2img: int, img2txt: int
) -> None:
    """Wait for so many more of all that was counted `before`, and see that there are no more."""
    wanted = {name: (a + txt2img, b + img2txt) for name, (a, b) in before.items()}
    names = tuple(name for name in before if name != "items")
    until(lambda: counted(worker, names)["items"] == wanted["items"], 60, "counting all jobs")
    assert counted(worker, names) == wanted


def kill(victims: list[psutil.Process]) -> None:
    for victim in victims:
        victim.kill()
    until(lambda: not any(victim.is_running() for victim in victims), WAIT_S)


def test_every_job_is_counted_once(worker: Worker, client: Client) -> None:
    before = counted(worker, ONCE_A_JOB + ON_THE_DEVICE)
    run_jobs(client, JOBS)
    assert_more(worker, before, JOBS, JOBS)
    batches = worker.value("crossmodal_batch_size_count", device="cpu")
    assert batches == worker.value("crossmodal_inference_seconds_count", device="cpu")
    assert worker.value("crossmodal_items_total", outcome="failed") == 0


def test_every_operation_on_the_object_store_is_counted(worker: Worker, client: Client) -> None:
    names = ("crossmodal_storage_operations_total", "crossmodal_storage_seconds_count")
    before = [worker.value(name, operation="put") for name in names]
    job = client.txt2img(PROMPT)
    job.result(timeout_s=WAIT_S)
    until(lambda: worker.value(names[0], operation="put", outcome="ok") == before[0] + 1, 60)
    assert worker.value(names[1], operation="put") == before[1] + 1


def test_what_dead_processes_have_counted_stays_counted(worker: Worker, client: Client) -> None:
    before = counted(worker, ONCE_A_JOB + ON_THE_DEVICE)
    run_jobs(client, 3)
    assert_more(worker, before, 3, 3)
    kill([worker.celery()])
    assert_more(worker, before, 3, 3)
    run_jobs(client, 3)
    assert_more(worker, before, 6, 6)


def test_a_job_whose_process_was_killed_is_counted_once(worker: Worker, client: Client) -> None:
    before = counted(worker, ONCE_A_JOB)
    with suspended(worker.host()):
        job = client.txt2img(PROMPT)
        until(lambda: job.status().state is JobState.RUNNING, WAIT_S)
        kill([worker.celery()])
    assert job.result(timeout_s=WAIT_S).attempt == 2
    assert_more(worker, before, 1, 0)


def test_a_worker_that_is_started_again_writes_no_more_files(
    worker: Worker, client: Client
) -> None:
    run_jobs(client, 3)
    before = worker.files()
    kill([worker.celery()])
    run_jobs(client, 3)
    assert worker.files() == before


def test_what_a_dead_worker_had_started_is_forgotten(worker: Worker, client: Client) -> None:
    kill([worker.celery()])
    run_jobs(client, 1)

    def zombies() -> list[psutil.Process]:
        children = psutil.Process(worker.child.pid).children(recursive=True)
        return [one for one in children if one.status() == psutil.STATUS_ZOMBIE]

    until(lambda: not zombies(), WAIT_S, "the end of what the worker had started")


def test_gauges_of_a_dead_host_vanish_until_there_is_another(worker: Worker) -> None:
    gauge = "crossmodal_model_load_seconds"
    until(lambda: worker.value(gauge, device="cpu") > 0, WAIT_S, "the host")
    worker.host().kill()
    until(lambda: gauge not in worker.scrape(), WAIT_S, "vanishing of the gauge")
    until(lambda: worker.value(gauge, device="cpu") > 0, WAIT_S, "another host")


def test_failed_items_of_bulk_jobs_are_counted(worker: Worker, client: Client) -> None:
    outcomes = "succeeded", "failed"

    def items() -> list[float]:
        name, task = "crossmodal_items_total", "txt2img.bulk"
        return [worker.value(name, task=task, outcome=outcome) for outcome in outcomes]

    succeeded, failed = items()
    list(client.map_txt2img([PROMPT] * 5 + ["zorg frob"]))
    until(lambda: items() == [succeeded + 5, failed + 1], 60, "counting six items")


def test_the_exposition_is_clean(worker: Worker, client: Client) -> None:
    run_jobs(client, 1)
    list(client.map_txt2img([PROMPT]))
    text = worker.scrape()
    assert problems_of(text) == []
    need(shutil.which("promtool") is not None, "promtool")
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_without_a_port_nothing_is_written(stack: RunningStack) -> None:
    assert not (stack.settings.run_dir / str(stack.supervisor.pid) / "metrics").exists()
    for child in stack.supervisor.children():
        assert "PROMETHEUS_MULTIPROC_DIR" not in child.environ()
