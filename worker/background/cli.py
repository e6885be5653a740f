"""`crossmodal background`: sends webhooks, and runs batch jobs submitted over HTTP."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from crossmodal import logs, tracing
from crossmodal.console import FAILED, errors_to_exit_status
from crossmodal.jobs.runners import AsyncRunner
from crossmodal.jobs.server import check_server
from crossmodal.machine import check_tasks
from crossmodal.scratch import remove_abandoned
from crossmodal.settings import Settings, load_settings
from producer.client import Client
from worker.background.http_batches import BatchRunner
from worker.background.presence import Presence
from worker.background.webhooks import WebhookSender


def background(
    concurrency: Annotated[
        int, typer.Option(min=1, help="Max webhook deliveries in progress at once.")
    ] = 32,
    ready_file: Annotated[Path | None, typer.Option(help="Touched once it is ready.")] = None,
) -> None:
    """Send webhooks and run batch jobs submitted over HTTP; needs no model and no GPU."""
    with errors_to_exit_status():
        settings = load_settings()
        logs.configure(settings, process="background")
        tracing.configure("background")
        check_tasks("the background process")
        check_server(settings)
        try:
            asyncio.run(serve(settings, concurrency, ready_file))
        except asyncio.CancelledError:
            raise typer.Exit(FAILED) from None
        finally:
            tracing.flush()


async def serve(settings: Settings, concurrency: int, ready_file: Path | None = None) -> None:
    """Work until a signal, then finish the webhooks in progress.

    Batch jobs are left to the next process, which resumes them. A second signal ends at once.
    """
    remove_abandoned("batch")
    runner = AsyncRunner(settings, what="background")
    with Presence(settings, runner, ready_file) as presence, Client(settings) as client:
        stopping = asyncio.Event()
        sender = WebhookSender(settings, runner, concurrency)
        batches = BatchRunner(settings, runner, client)
        showing = asyncio.create_task(presence.show(stopping, (sender, batches)))
        working = asyncio.gather(sender.run(stopping), batches.run(stopping))
        _on_end(stopping, working)
        try:
            await working
        finally:
            showing.cancel()
            await presence.leave()
            await runner.close()


def _on_end(stopping: asyncio.Event, working: "asyncio.Future[tuple[None, None]]") -> None:
    def end() -> None:
        if stopping.is_set():
            working.cancel()
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        loop.add_signal_handler(signal.SIGHUP, end)
