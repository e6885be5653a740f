"""`crossmodal up`: everything on this machine, until Ctrl-C."""

import os
import tempfile
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from crossmodal.console import (
    Json,
    console,
    errors_to_exit_status,
    print_json,
    print_table,
    stderr,
)
from crossmodal.errors import BrokerUnavailable
from crossmodal.jobs.connection import is_reachable
from crossmodal.local.stack import Stack
from crossmodal.local.valkey import is_local, start_valkey
from crossmodal.processes import treat_sigterm_as_interrupt, wait_until
from crossmodal.settings import Settings, data_dir, load_settings, redacted

VALKEY_STOP_S = 10.0
POLL_S = 0.2


def up(
    devices: Annotated[str, typer.Option(help="auto, cpu, or cuda:0,cuda:1.")] = "auto",
    concurrency: Annotated[int | None, typer.Option(min=1, help="Task processes a device.")] = None,
    flower: Annotated[bool, typer.Option(help="Also run Flower.")] = True,
    gateway: Annotated[bool, typer.Option(help="Also serve HTTP, the page and webhooks.")] = True,
    as_json: Json = False,
) -> None:
    """Run Valkey (if none answers), a worker, Flower and the gateway; one Ctrl-C stops all."""
    treat_sigterm_as_interrupt()
    options = ["--devices", devices]
    options += ["--concurrency", str(concurrency)] if concurrency else []
    with errors_to_exit_status(), tempfile.TemporaryDirectory(prefix="crossmodal-") as folder:
        settings = load_settings()
        ready_file = Path(folder) / "ready"
        try:
            with Stack({}) as stack:
                _ensure_queue(stack, settings)
                stack.start_worker(options, settings.drain_s, ready_file)
                places = _start_services(stack, settings, flower, gateway)
                stack.wait_ready(ready_file)
                _say_ready(places, as_json)
                _watch(stack)
        except KeyboardInterrupt:
            stderr.print("stopped")


def _ensure_queue(stack: Stack, settings: Settings) -> None:
    url = settings.broker_url.get_secret_value()
    if is_reachable(settings):
        return
    if not is_local(url):
        raise BrokerUnavailable(
            f"no Redis answers at {redacted(url)}, and it is not for this machine to start: "
            "check CELERY_BROKER_URL"
        )
    port = urlsplit(url).port or 6379
    folder = data_dir() / f"valkey-{port}"  # two servers must never write the same files
    stack.add(start_valkey(folder, port), VALKEY_STOP_S)
    stderr.print(f"started Valkey at {url}, its data in {folder}", soft_wrap=True)


def _start_services(
    stack: Stack, settings: Settings, flower: bool, gateway: bool
) -> dict[str, str | None]:
    """Start what is for eyes and for other languages; where all of it is found."""
    host, port = (os.environ.get(f"FLOWER_{n}") for n in ("ADDRESS", "PORT"))
    flower_url = f"http://{host or '127.0.0.1'}:{port or 5555}"
    if not (flower and stack.start_flower()):
        flower_url = ""
    page = stack.start_gateway(flower_url) if gateway else None
    if page is not None:
        stack.start_webhooks()
    return {
        "queue": redacted(settings.broker_url.get_secret_value()),
        "store": settings.storage_url,
        "flower": flower_url or None,
        "page": page,
    }


def _say_ready(places: dict[str, str | None], as_json: bool) -> None:
    if as_json:
        print_json(places)
        return
    console.print("ready")
    print_table(("", ""), [(name, place) for name, place in places.items() if place])
    console.print(
        'try  crossmodal txt2img "a large red circle on a white background" -o circle.png'
    )


def _watch(stack: Stack) -> None:
    """Return never: ends by Ctrl-C, or by `StackFailed` when a process gives up."""
    wait_until(lambda: stack.dead() is not None, float("inf"), POLL_S)
    stack.check()
