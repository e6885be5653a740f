"""A real Celery worker without models, the one that delivers webhooks, and work for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crossmodal.jobs.names import Task, new_job_id
from crossmodal.jobs.origin import Origin, Webhook
from crossmodal.jobs.record import Delivery
from crossmodal.jobs.webhooks import Deliveries
from crossmodal.processes import Child, python_module
from crossmodal.settings import Settings
from tests.ledgers import Ledger
from tests.waiting import until
from tests.workers import environment

REFUSED = "http://127.0.0.1:1/"  # an address that no delivery goes to: it is given up at once


@contextmanager
def courier(settings: Settings, folder: Path) -> Iterator[Child]:
    """A worker that takes messages of webhooks, until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    ready = folder / "ready"
    with (folder / "courier.log").open("wb") as log:
        child = Child(
            "courier",
            python_module("crossmodal.cli", "webhooks", "--concurrency", "1",
                          "--ready-file", str(ready)),
            environment(settings) | {"CROSSMODAL_RUN_DIR": str(folder / "run")}, output=log,
        )  # fmt: skip
        child.start()
        try:
            until(lambda: ready.exists() or not child.is_alive, 90, "a worker")
            assert child.is_alive, (folder / "courier.log").read_text()
            yield child
        finally:
            child.stop(20)


def hooked(ledger: Ledger) -> str:
    """A job that ends, and of which somebody is to be told."""
    job_id = new_job_id()
    hook = Webhook(url=REFUSED, base="http://here")
    ledger.submit(job_id, Task.TXT2IMG, "{}", "", origin=Origin(webhook=hook))
    ledger.cancel(job_id)
    return job_id


def deliveries_of(deliveries: Deliveries, job_id: str) -> list[Delivery]:
    return list(deliveries.list("", 100, job_id))


def has_gone_through(deliveries: Deliveries, job_id: str) -> bool:
    """Whether a worker has taken the message, and tried."""
    return [d.outcome for d in deliveries_of(deliveries, job_id)] == ["failed"]
