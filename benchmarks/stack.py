"""Private stacks for benchmarks: a real Valkey and Celery worker, a real or fake model host."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crossmodal.kinds.registry import kinds
from crossmodal.local.stack import Stack
from crossmodal.local.valkey import free_port, start_valkey, valkey_url
from crossmodal.models.catalog import FolderConfig, ModelFolder, Served
from crossmodal.processes import Child, wait_until
from crossmodal.settings import SHIPPED_BUNDLE, Settings, load_settings
from producer import Client
from worker.crews import BULK_CONCURRENCY, CONCURRENCY, crews_of
from worker.devices import Device
from worker.health import UnitFiles
from worker.serving import Serving
from worker.supervisor import served_models
from worker.unit import CeleryWorker

FAKE_HOST = Path(__file__).with_name("fake_host.py")
DEVICES = {"cpu": "cpu", "cuda": "cuda:0"}  # torch's name -> the supervisor's name
START_S = 120.0
DRAIN_S = 60.0
FAKE = ModelFolder(SHIPPED_BUNDLE, "bundle", "fake", "0", tuple(kinds()), FolderConfig())


@dataclass(frozen=True)
class Running:
    """A running stack, and a client of it."""

    settings: Settings
    client: Client
    folder: Path
    worker: CeleryWorker | None = None


@contextmanager
def queue_server() -> Iterator[tuple[Path, int]]:
    """Run a Valkey in a private folder, and set the environment to use it."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder, port = Path(name), free_port()
        os.environ.update(
            {
                "CELERY_BROKER_URL": valkey_url(port),
                "CELERY_RESULT_BACKEND": "",
                "CROSSMODAL_STORAGE_URL": (folder / "storage").as_uri(),
                "CROSSMODAL_RUN_DIR": str(folder / "run"),
                "CROSSMODAL_MAX_QUEUE_LENGTH": "10000000",
                "CROSSMODAL_LOG_LEVEL": "WARNING",  # as for the libraries it is compared with
            }
        )
        server = start_valkey(folder / "valkey", port)
        try:
            yield folder, port
        finally:
            server.stop(10)


@contextmanager
def real_stack(device: str = "cpu", *options: str) -> Iterator[Running]:
    """Run `crossmodal worker` with the shipped models."""
    with queue_server() as (folder, _), (folder / "log").open("wb") as log, Stack({}, log) as stack:
        stack.start_worker(["--devices", DEVICES[device], *options], DRAIN_S, folder / "ready")
        stack.wait_ready(folder / "ready")
        settings = load_settings()
        with Client(settings) as client:
            yield Running(settings, client, folder)


@contextmanager
def fake_stack(
    batch_s: float,
    concurrency: int = CONCURRENCY["cpu"],
    bulk_concurrency: int = BULK_CONCURRENCY["cpu"],
) -> Iterator[Running]:
    """Run a real Celery worker with a fake host, whose batches take `batch_s` seconds."""
    with queue_server() as (folder, _):
        device, served = Device("cpu"), Served((FAKE,), FAKE.name)
        files = UnitFiles(folder, device.slug)
        settings = load_settings()
        crews = crews_of(settings, "cpu", served, None, concurrency, bulk_concurrency)
        queues = {queue for crew in crews for queue in crew.queues}
        [model] = models = served_models(served, queues, folder, device)
        serving = Serving(folder, device.slug)
        serving.write(device.name, models, room=2**40)
        serving.want([model.name])
        with (folder / "log").open("wb") as log:
            argv = [sys.executable, str(FAKE_HOST), str(model.socket), str(batch_s)]
            host = Child("host", argv, {"OMP_NUM_THREADS": "1"}, output=log)
            host.start()
            worker = CeleryWorker(settings, device, crews, files)
            child = worker.child
            try:
                assert wait_until(model.socket.is_socket, START_S)
                child.output = log
                child.start()
                assert wait_until(worker.files.ready.exists, START_S)
                with Client(settings) as client:
                    yield Running(settings, client, folder, worker)
            finally:
                child.stop(10)
                host.stop(10)
