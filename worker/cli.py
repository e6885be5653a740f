"""`crossmodal worker`: serve jobs on this machine's devices."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from crossmodal import logs
from crossmodal.console import errors_to_exit_status
from crossmodal.errors import InvalidSetting
from crossmodal.jobs.connection import is_reachable
from crossmodal.jobs.server import check_server
from crossmodal.machine import check_room
from crossmodal.models.catalog import Served, open_served
from crossmodal.settings import Settings, load_settings, redacted
from worker.crews import crews_of
from worker.devices import parse_devices
from worker.supervisor import Supervisor

log = logging.getLogger(__name__)


Devices = Annotated[
    str,
    typer.Option(
        metavar="NAMES", help="auto, cpu, or GPUs such as cuda:0,cuda:1; one worker each."
    ),
]
ModelNames = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="Models to serve, separated by commas.", show_default="all"),
]
Queues = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="Queues to serve, separated by commas.", show_default="all"),
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Max jobs in progress per device; it limits a batch, too, as does "
        "CROSSMODAL_MAX_BATCH. (24, GPU 32)",
    ),
]
BulkConcurrency = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Max bulk messages in progress per device. (4, GPU 8)"),
]
MetricsPort = Annotated[
    int | None, typer.Option(metavar="N", help="Serve Prometheus metrics at this port. (off)")
]
ReadyFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Touched once every device takes jobs.")
]


def worker(
    devices: Devices = "auto",
    models: ModelNames = None,
    queues: Queues = None,
    concurrency: Concurrency = None,
    bulk_concurrency: BulkConcurrency = None,
    metrics_port: MetricsPort = None,
    ready_file: ReadyFile = None,
) -> None:
    """Serve jobs: a model host and a Celery worker for each device, restarted when they die."""
    with errors_to_exit_status():
        settings = load_settings(metrics_port=metrics_port)
        logs.configure(settings, process="supervisor")
        pinned = parse_devices(devices)
        # Report a folder without a model once, here, not at every restart.
        served = chosen(settings, models)
        crews = crews_of(
            settings, pinned[0].torch_name, served, queues, concurrency, bulk_concurrency
        )
        check_room()
        check_server(settings)
        supervisor = Supervisor(settings, pinned, crews, served, ready_file)
        if not is_reachable(settings):
            log.warning(
                "no Redis answers at %s: jobs are taken once one does",
                redacted(settings.broker_url.get_secret_value()),
            )
        raise typer.Exit(supervisor.run())


def chosen(settings: Settings, names: str | None) -> Served:
    """Return the models with these names, or all.

    Raises `InvalidSetting`, and the error of the default model's folder.
    """
    served = open_served(settings)
    for name, fault in served.faults.items():
        log.warning("the model %s is not served: %s", name, fault)
    if names is None:
        return served
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    if not chosen:
        raise InvalidSetting(f"--models {names!r}: name at least one")
    return served.only(chosen)
