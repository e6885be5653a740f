"""`crossmodal worker`: serve jobs on this machine's devices."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from crossmodal.console import errors_to_exit_status
from crossmodal.errors import InvalidSetting
from crossmodal.jobs.names import Task
from crossmodal.models.bundle import open_bundle
from crossmodal.settings import load_settings
from worker.devices import parse_devices
from worker.supervisor import Supervisor

ALL_QUEUES = ",".join(task.queue for task in Task)
DEFAULT_CONCURRENCY = {"cpu": 8, "cuda": 32}


def worker(
    devices: Annotated[
        str, typer.Option(help="auto, cpu, or GPUs such as cuda:0,cuda:1; one worker each.")
    ] = "auto",
    queues: Annotated[str, typer.Option(help="Queues to serve, separated by commas.")] = ALL_QUEUES,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, help="Task processes a device; also the largest batch. [8, GPU 32]"),
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Touched when every device takes jobs.")
    ] = None,
) -> None:
    """Serve jobs: a model host and a Celery worker for each device, restarted when they die."""
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(levelname)s %(message)s")
    with errors_to_exit_status():
        settings = load_settings()
        open_bundle(settings.bundle)  # a broken bundle is said once, not at every restart
        pinned = parse_devices(devices)
        count = concurrency or DEFAULT_CONCURRENCY[pinned[0].torch_name]
        supervisor = Supervisor(settings, pinned, _parse_queues(queues), count, ready_file)
        raise typer.Exit(supervisor.run())


def _parse_queues(text: str) -> list[str]:
    queues = [name.strip() for name in text.split(",") if name.strip()]
    known = [task.queue for task in Task]
    if not queues or any(name not in known for name in queues):
        raise InvalidSetting(f"--queues {text!r}: choose from {', '.join(known)}")
    return queues
