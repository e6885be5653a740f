"""`crossmodal webhooks`: deliver webhooks, as jobs on a queue of their own."""

from pathlib import Path
from typing import Annotated

import typer

from crossmodal import logs
from crossmodal.console import errors_to_exit_status
from crossmodal.jobs.names import WEBHOOK_QUEUE
from crossmodal.jobs.server import check_server
from crossmodal.settings import load_settings
from worker.devices import Device
from worker.supervisor import Supervisor
from worker.unit import Crew


def webhooks(
    concurrency: Annotated[
        int, typer.Option(min=1, help="Receivers that are waited for at once.")
    ] = 8,
    ready_file: Annotated[Path | None, typer.Option(help="Touched when it takes jobs.")] = None,
) -> None:
    """Deliver webhooks: a Celery worker that needs no model and no GPU, restarted when it dies."""
    with errors_to_exit_status():
        settings = load_settings()
        logs.configure(settings, process="supervisor")
        check_server(settings)
        crew = Crew([WEBHOOK_QUEUE], concurrency, needs_models=False)
        supervisor = Supervisor(settings, [Device(WEBHOOK_QUEUE)], [crew], ready_file)
        raise typer.Exit(supervisor.run())
