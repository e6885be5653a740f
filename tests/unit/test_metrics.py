"""What is counted, and how it is told: the cluster's metrics, the gateway's, a process's own."""

import asyncio
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.responses import StreamingResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families

from crossmodal.errors import (
    BlobNotFound,
    BrokerUnavailable,
    InferenceFailed,
    InvalidSetting,
    StorageNotWritable,
)
from crossmodal.jobs.ledger import Attempt
from crossmodal.jobs.record import Failure
from crossmodal.jobs.workers import Workers
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.task import Task, tasks
from crossmodal.local.valkey import free_port
from crossmodal.metrics import OUT_OF_MEMORY, STORAGE, WORKER
from crossmodal.processes import wait_until
from crossmodal.settings import Settings, load_settings
from crossmodal.storage import Storage
from producer import Client
from producer.gateway.metrics import HTTP, CountRequests, Figures, Up, figures, render
from tests.at_once import at_once
from tests.conftest import need
from tests.exposition import documented, exported, problems_of, value
from tests.unit.test_batcher import Recorder, batcher_of, one, request
from worker.host.isolation import run_isolated
from worker.metrics_server import MetricFiles, MetricsServer


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


def seen(client: Client) -> tuple[Figures | None, Up]:
    """What a gateway would tell of the cluster."""
    try:
        return client.run(figures(client.calls)), Up()
    except BrokerUnavailable:
        return None, Up(broker=False)


def scrape(client: Client) -> list[Metric]:
    return list(text_string_to_metric_families(render(*seen(client))[0].decode()))


def own(registry: CollectorRegistry, name: str, **labels: str) -> float:
    return value(list(registry.collect()), name, **labels)


def started(client: Client) -> Attempt:
    job = client.txt2img("a red circle")
    attempt = client.run(client.ledger.start(job.id, "worker@here"))
    assert isinstance(attempt, Attempt)
    return attempt


def fail(client: Client) -> None:
    """A job that ends as failed."""
    failure = Failure.of(InferenceFailed("it broke"))
    assert client.run(client.ledger.fail(started(client), failure, dead=True))


# -- the cluster ------------------------------------------------------------------------


def test_the_ledger_counts_jobs_by_how_they_end(client: Client) -> None:
    for _ in range(3):
        fail(client)
    waiting = client.txt2img("a red circle")
    client.cancel(waiting.id)
    found = scrape(client)
    assert value(found, "crossmodal_jobs_submitted_total", task="txt2img") == 4
    name, task = "crossmodal_jobs_finished_total", {"task": "txt2img", "queue": "txt2img"}
    failed = {"state": "failed", "code": "inference_failed"}
    assert value(found, name, **task, **failed) == 3
    assert value(found, name, **task, state="canceled", code="") == 1
    assert value(found, name, **task, state="succeeded", code="") == 0
    assert value(found, name) == 4
    assert value(found, "crossmodal_dead_letters") == 3


def test_queues_are_told_as_they_are_now(client: Client) -> None:
    started(client)
    for _ in range(2):
        client.txt2img("a red circle")
    found = scrape(client)
    assert value(found, "crossmodal_queue_depth", queue="txt2img") == 2
    assert value(found, "crossmodal_queue_running", queue="txt2img") == 1
    assert value(found, "crossmodal_queue_depth", queue="img2txt.bulk") == 0
    assert wait_until(
        lambda: (
            value(scrape(client), "crossmodal_queue_oldest_wait_seconds", queue="txt2img") > 0.1
        ),
        5,
    )


def test_a_queue_that_is_paused_is_told(client: Client) -> None:
    client.pause("txt2img")
    found = scrape(client)
    assert value(found, "crossmodal_queue_paused", queue="txt2img") == 1
    assert value(found, "crossmodal_queue_paused", queue="img2txt") == 0


def test_attempts_after_the_first_are_counted(client: Client) -> None:
    attempt = started(client)
    client.run(client.ledger.release(attempt, Failure.of(InferenceFailed("it broke")), counts=True))
    client.run(client.ledger.start(attempt.job, "worker@here"))
    found = scrape(client)
    assert value(found, "crossmodal_jobs_redelivered_total", task="txt2img") == 1


def test_every_queue_says_how_many_workers_it_has(client: Client, settings: Settings) -> None:
    workers = Workers(settings)
    client.run(workers.announce("a@here", queues=["txt2img", "img2txt"]))
    client.run(workers.announce("b@here", queues=["txt2img"]))
    found = scrape(client)
    counts = {t: value(found, "crossmodal_workers", queue=str(t)) for t in tasks()}
    assert counts == {
        Task("txt2img"): 2,
        Task("img2txt"): 1,
        Task("txt2img.bulk"): 0,
        Task("img2txt.bulk"): 0,
    }


def test_a_redis_that_is_away_is_told_and_does_not_hide_the_gateway(client: Client) -> None:
    assert value(scrape(client), "crossmodal_broker_up") == 1
    nobody = load_settings(broker_url=f"redis://127.0.0.1:{free_port()}/0", connect_timeout_s=0.2)
    with Client(nobody) as lonely:
        found = scrape(lonely)
    assert [f.samples[0].value for f in found if f.name == "crossmodal_broker_up"] == [0]
    assert value(found, "process_cpu_seconds_total") > 0
    assert not any(family.name.startswith("crossmodal_queue") for family in found)


def test_the_exposition_is_clean(client: Client) -> None:
    fail(client)
    body, content_type = render(*seen(client))
    assert content_type.startswith("text/plain; version=0.0.4")
    assert problems_of(body.decode()) == []
    need(shutil.which("promtool") is not None, "promtool")
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=body, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, b"")


def test_openmetrics_is_spoken_where_it_is_asked_for(client: Client) -> None:
    body, content_type = render(*seen(client), "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    found = list(open_families(body.decode()))  # type: ignore[no-untyped-call]
    assert value(found, "crossmodal_broker_up") == 1


@at_once(
    "text, problem",
    [
        ("# TYPE a gauge\na 1\n", "a: no help"),
        ("# HELP a x\n# TYPE a counter\na 1\n", "a: a counter, not a total"),
        ("# HELP a_ms x\n# TYPE a_ms gauge\na_ms 1\n", "a_ms: no base unit"),
        ("# HELP a_total x\n# TYPE a_total gauge\na_total 1\n", "a_total: a gauge with the name"),
        ("# HELP a x\n# TYPE a gauge\na 1\na 2\n", "a: ('a', ()) comes twice"),
        ("# HELP a x\na 1\n", "a: no type"),
    ],
)
def test_the_check_of_expositions_finds_what_is_wrong(text: str, problem: str) -> None:
    assert any(found.startswith(problem) for found in problems_of(text))


def test_the_manual_has_every_metric_with_its_labels(client: Client) -> None:
    fail(client)
    assert documented() == exported(client)


# -- the gateway's own ------------------------------------------------------------------

app = FastAPI()
router = APIRouter(prefix="/jobs")


@router.get("/{job_id}")
async def job(job_id: str) -> str:
    return job_id


@router.get("/{job_id}/broken")
async def broken(job_id: str) -> str:
    raise RuntimeError(job_id)


@router.get("/{job_id}/slow")
async def slow(job_id: str) -> str:
    app.state.at_work.set()
    await asyncio.Event().wait()
    return job_id


@router.get("/{job_id}/events")
async def events(job_id: str) -> StreamingResponse:
    async def told() -> AsyncIterator[str]:
        yield f"data: {own(HTTP, 'crossmodal_open_event_streams')}\n\n"

    return StreamingResponse(told(), media_type="text/event-stream")


app.include_router(router, prefix="/v1")
app.mount("/page", StaticFiles(directory=Path(__file__).parent))
app.add_middleware(CountRequests)


async def exchange(path: str, method: str) -> httpx2.Response:
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://here") as caller:
        return await caller.request(method, path)


def ask(path: str, method: str = "GET") -> httpx2.Response:
    return asyncio.run(exchange(path, method))


def leave(path: str) -> None:
    """Ask, and go away once the route is at work."""

    async def asked() -> None:
        app.state.at_work = asyncio.Event()
        asking = asyncio.create_task(exchange(path, "GET"))
        await app.state.at_work.wait()
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking

    asyncio.run(asyncio.wait_for(asked(), 60))


@at_once(
    "method, path, labels",
    [
        ("GET", "/v1/jobs/17", ("GET", "/v1/jobs/{job_id}", "200")),
        ("POST", "/v1/jobs/17", ("POST", "/v1/jobs/{job_id}", "405")),
        ("GET", "/v1/jobs/17/broken", ("GET", "/v1/jobs/{job_id}/broken", "500")),
        ("GET", "/wp-admin.php", ("GET", "unmatched", "404")),
        ("GET", "/page/test_metrics.py", ("GET", "/page", "200")),
        ("GET", "/page/x.js", ("GET", "/page", "404")),
        ("BREW", "/v1/jobs/17", ("other", "/v1/jobs/{job_id}", "405")),
    ],
)
def test_requests_are_counted_by_the_template_of_their_route(
    method: str, path: str, labels: tuple[str, str, str]
) -> None:
    named = dict(zip(("method", "route", "status"), labels, strict=True))
    route = {"route": labels[1]}
    counted = own(HTTP, "crossmodal_http_requests_total", **named)
    timed = own(HTTP, "crossmodal_http_request_seconds_count", **route)
    ask(path, method)
    assert own(HTTP, "crossmodal_http_requests_total", **named) == counted + 1
    assert own(HTTP, "crossmodal_http_request_seconds_count", **route) == timed + 1


def test_a_request_whose_sender_has_gone_is_counted_as_such() -> None:
    name, route = "crossmodal_http_requests_total", "/v1/jobs/{job_id}/slow"
    before = own(HTTP, name, route=route, status="499")
    leave("/v1/jobs/17/slow")
    assert own(HTTP, name, route=route, status="499") == before + 1


def test_event_streams_are_counted_while_they_are_open_and_not_timed() -> None:
    name, route = "crossmodal_http_requests_total", "/v1/jobs/{job_id}/events"
    before = own(HTTP, name, route=route, status="200")
    is_open = own(HTTP, "crossmodal_open_event_streams")
    timed = own(HTTP, "crossmodal_http_request_seconds_count", route=route)
    answer = ask("/v1/jobs/17/events")
    assert answer.text == f"data: {is_open + 1}\n\n"
    assert own(HTTP, "crossmodal_open_event_streams") == is_open
    assert own(HTTP, name, route=route, status="200") == before + 1
    assert own(HTTP, "crossmodal_http_request_seconds_count", route=route) == timed


# -- what processes count ---------------------------------------------------------------


def operations(operation: str, outcome: str) -> float:
    name = "crossmodal_storage_operations_total"
    return own(STORAGE, name, operation=operation, outcome=outcome)


def test_operations_on_the_store_are_counted_by_how_they_end(tmp_path: Path) -> None:
    store = Storage((tmp_path / "store").as_uri())
    puts, missing = operations("put", "ok"), operations("get", "blob_not_found")
    damaged = operations("get", "blob_damaged")
    blob = store.put("a", b"bytes", "text/plain")
    with pytest.raises(BlobNotFound):
        store.get(BlobRef(key="b", media_type="text/plain", size=1))
    with pytest.raises(Exception, match="digest"):
        store.get(blob.model_copy(update={"sha256": "0" * 64}))
    assert operations("put", "ok") == puts + 1
    assert operations("get", "blob_not_found") == missing + 1
    assert operations("get", "blob_damaged") == damaged + 1


def test_a_store_that_cannot_be_written_is_counted(tmp_path: Path) -> None:
    store = Storage((tmp_path / "store").as_uri())
    (tmp_path / "store" / "a").write_bytes(b"a file where a folder must be")
    before = operations("put", "storage_not_writable")
    with pytest.raises(StorageNotWritable):
        store.put("a/b", b"bytes", "text/plain")
    assert operations("put", "storage_not_writable") == before + 1


def test_a_listing_that_is_not_read_to_its_end_is_no_error(tmp_path: Path) -> None:
    store = Storage((tmp_path / "store").as_uri())
    for key in ("a/1", "a/2"):
        store.put(key, b"bytes", "text/plain")
    before = operations("list", "ok")
    next(listing := store.list("a"))
    del listing
    assert operations("list", "ok") == before + 1


def test_a_batch_is_measured_once_and_each_of_its_requests() -> None:
    labels = {"task": "txt2img.bulk", "device": "cpu"}

    def seen() -> list[float]:
        names = ("batch_size_count", "batch_size_sum", "inference_seconds_count")
        return [own(WORKER, f"crossmodal_{name}", **labels) for name in names] + [
            own(WORKER, "crossmodal_batch_wait_seconds_count", **labels)
        ]

    async def run() -> None:
        requests = [request(str(i)) for i in range(3)]
        await batcher_of(Recorder(), 4).run(Task("txt2img"), requests, bulk=True)

    before = seen()
    asyncio.run(run())
    assert [now - then for now, then in zip(seen(), before, strict=True)] == [1, 3, 1, 3]


def test_batches_are_told_apart_by_task(tmp_path: Path) -> None:
    labels = {"task": "txt2img", "device": "cpu"}
    before = own(WORKER, "crossmodal_batch_size_count", **labels)
    asyncio.run(one(batcher_of(Recorder(), 4), "a"))
    assert own(WORKER, "crossmodal_batch_size_count", **labels) == before + 1


class Greedy(Recorder):
    """Has memory for two requests at once."""

    def run(self, batch, link=None):  # type: ignore[no-untyped-def]
        if len(batch) > 2:
            raise MemoryError("no memory")
        return super().run(batch)


def test_batches_without_memory_are_counted_for_their_device() -> None:
    device = f"cuda:{uuid.uuid4().int % 1_000}"
    run_isolated(Greedy(), [request(str(i)) for i in range(5)], device=device)
    found = OUT_OF_MEMORY.labels(device).collect()
    assert value(list(found), "crossmodal_out_of_memory_total") == 2  # five, and three of them


# -- files of many processes ------------------------------------------------------------

WRITE = """
import os, sys
from crossmodal.metrics import ITEMS, JOB, MODEL_LOAD
ITEMS.labels("txt2img", "succeeded").inc(int(sys.argv[1]))
JOB.labels("txt2img").observe(0.3)
MODEL_LOAD.labels("cpu").set(2.5)
"""


def write(files: MetricFiles, name: str, count: int) -> None:
    """Count in a process of its own, which ends."""
    env = {**os.environ, **files.environment(name)}
    subprocess.run([sys.executable, "-c", WRITE, str(count)], env=env, check=True, timeout=60)


def test_a_process_that_is_started_again_counts_on(tmp_path: Path) -> None:
    files = MetricFiles(tmp_path / "metrics")
    for name, count in (("worker", 1), ("worker", 2), ("host", 4)):
        write(files, name, count)
    found = list(files.collect())
    assert value(found, "crossmodal_items_total", task="txt2img") == 7
    assert value(found, "crossmodal_job_seconds_count", task="txt2img") == 3
    assert value(found, "crossmodal_job_seconds_sum", task="txt2img") == pytest.approx(0.9)
    assert value(found, "crossmodal_job_seconds_bucket", task="txt2img", le="0.5") == 3
    assert value(found, "crossmodal_job_seconds_bucket", task="txt2img", le="0.25") == 0
    parts = {file.stem.rpartition("_")[2] for file in files.folder.iterdir()}
    assert parts == {"worker", "host"}


def test_what_is_forked_counts_beside_its_parent(tmp_path: Path) -> None:
    files = MetricFiles(tmp_path / "metrics")
    code = """
import os
from crossmodal.metrics import ITEMS, count_as
ITEMS.labels("txt2img", "succeeded").inc(1)
if os.fork():
    os.wait()
else:
    count_as("lane-0")
    ITEMS.labels("txt2img", "succeeded").inc(2)
"""
    for _ in range(2):
        env = {**os.environ, **files.environment("host")}
        subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=60)
    assert value(list(files.collect()), "crossmodal_items_total") == 6


def test_a_file_that_has_just_been_made_is_no_error(tmp_path: Path) -> None:
    files = MetricFiles(tmp_path / "metrics")
    (files.folder / f"counter_{1}.db").touch()
    assert list(files.collect()) == []


def test_a_port_that_is_taken_is_an_invalid_setting(tmp_path: Path) -> None:
    settings = load_settings(metrics_port=free_port())
    server = MetricsServer.start(settings, tmp_path)
    assert server is not None
    try:
        with pytest.raises(InvalidSetting, match=rf"{settings.metrics_port}: .*in use"):
            MetricsServer.start(settings, tmp_path)
    finally:
        server.close()


def test_without_a_port_there_is_no_folder(tmp_path: Path) -> None:
    assert MetricsServer.start(load_settings(), tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_no_job_fails_because_the_folder_of_the_counts_is_gone(tmp_path: Path) -> None:
    code = """
from crossmodal import metrics
with metrics.storage_operation("get"):
    metrics.output_stored("txt2img", 0.1)
metrics.job_ended("txt2img", 0.1, 0.1, 1, 0)
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "gone")},
    )
    assert done.stdout == "done\n"
    assert done.stderr.count("cannot write metrics") == 3
