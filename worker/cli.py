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
from crossmodal.kinds.registry import kinds
from crossmodal.kinds.task import Task, tasks
from crossmodal.models.catalog import ModelFolder, open_served
from crossmodal.settings import Settings, load_settings, redacted
from worker.devices import parse_devices
from worker.supervisor import Supervisor
from worker.unit import Crew

log = logging.getLogger(__name__)

CONCURRENCY = {"cpu": 24, "cuda": 32}
BULK_CONCURRENCY = {"cpu": 4, "cuda": 8}


def worker(
    devices: Annotated[
        str,
        typer.Option(
            metavar="NAMES", help="auto, cpu, or GPUs such as cuda:0,cuda:1; one worker each."
        ),
    ] = "auto",
    queues: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Queues to serve, separated by commas.", show_default="all"
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Jobs that a device has in hand; a batch has at most as many, and no more than "
            "CROSSMODAL_MAX_BATCH. (24, GPU 32)",
        ),
    ] = None,
    bulk_concurrency: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Bulk messages that a device has in hand. (4, GPU 8)"
        ),
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(metavar="N", help="Serve Prometheus metrics at this port. (off)")
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Touched when every device takes jobs.")
    ] = None,
) -> None:
    """Serve jobs: a model host and a Celery worker for each device, restarted when they die."""
    with errors_to_exit_status():
        settings = load_settings(metrics_port=metrics_port)
        logs.configure(settings, process="supervisor")
        pinned = parse_devices(devices)
        # A broken model is said once, here, not at every restart.
        crews = served_crews(settings, pinned[0].torch_name, queues, concurrency, bulk_concurrency)
        check_server(settings)
        supervisor = Supervisor(settings, pinned, crews, ready_file)
        if not is_reachable(settings):
            log.warning("no Redis answers at %s: jobs are taken once one does",
                        redacted(settings.broker_url.get_secret_value()))  # fmt: skip
        raise typer.Exit(supervisor.run())


def served_crews(
    settings: Settings, device: str, queues: str | None, concurrency: int | None,
    bulk_concurrency: int | None,
) -> list[Crew]:  # fmt: skip
    """What a worker takes by its options, and by what the models of its folder serve.

    Raises what is wrong with the folder, and `InvalidSetting`.
    """
    found = open_served(settings)
    return crews_of(
        settings, device, served_queues(found, queues), concurrency, bulk_concurrency,
        serves_all=set(found.kinds) == set(kinds()),
    )  # fmt: skip


def served_queues(found: ModelFolder, text: str | None) -> list[str]:
    """Those that are asked for, or all that the models of a folder serve."""
    own = [task.queue for task in tasks() if task.kind.name in found.kinds]
    queues = own if text is None else parse_queues(text)
    if strange := [queue for queue in queues if queue not in own]:
        raise InvalidSetting(
            f"--queues {text!r}: the models in {found.folder} do not serve {', '.join(strange)}, "
            f"but {', '.join(own)}"
        )
    return queues


def parse_queues(text: str) -> list[str]:
    """Raises `InvalidSetting` for a queue that there is not, and for none at all."""
    queues = [name.strip() for name in text.split(",") if name.strip()]
    known = [task.queue for task in tasks()]
    if not queues or any(name not in known for name in queues):
        raise InvalidSetting(f"--queues {text!r}: choose from {', '.join(known)}")
    return queues


def crews_of(
    settings: Settings, kind: str, queues: list[str], concurrency: int | None = None,
    bulk_concurrency: int | None = None, *, serves_all: bool = True,
) -> list[Crew]:  # fmt: skip
    """The queues by lane, and how many messages of each lane a worker has in hand.

    `kind` is that of its device, cpu or cuda. Only who serves all kinds of jobs takes them from
    the queue of messages that name none.
    """
    in_hand = concurrency or CONCURRENCY[kind]
    bulk_in_hand = bulk_concurrency or settings.bulk_concurrency or BULK_CONCURRENCY[kind]
    bulk = [queue for queue in queues if Task(queue).is_bulk]
    interactive = [queue for queue in queues if queue not in bulk]
    if interactive and settings.plain_queue and serves_all:
        interactive.append(settings.plain_queue)
    crews = [Crew(interactive, in_hand), Crew(bulk, bulk_in_hand, is_bulk=True)]
    return [crew for crew in crews if crew.queues]
