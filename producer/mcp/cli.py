"""`crossmodal mcp`: serve jobs to agents as tools."""

import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from socket import socket
from typing import Annotated

import anyio
import typer
import uvicorn
from anyio.abc import TaskStatus
from mcp.server.stdio import stdio_server

from crossmodal import logs, tracing
from crossmodal.console import errors_to_exit_status
from crossmodal.errors import InvalidSetting
from crossmodal.machine import check_tasks
from crossmodal.settings import Settings, load_settings
from producer.http.keys_needed import needs_keys
from producer.http.protocol import config_of
from producer.mcp.desk import AgentsClient, Desk
from producer.mcp.http import Keys, anybody, make_app
from producer.mcp.server import make_server

PATIENCE_S = 45.0  # clients of the official SDKs time out after 60 s, which cancels the job
HOST = "127.0.0.1"
PORT = 8001
ANY = ("0.0.0.0", "::")  # noqa: S104 - only compared with


Http = Annotated[
    bool, typer.Option("--http", help="Serve over HTTP at /mcp, not over stdin and stdout.")
]
Host = Annotated[
    str | None, typer.Option(metavar="IP", help=f"With --http: listen address ({HOST}).")
]
Port = Annotated[
    int | None,
    typer.Option(metavar="N", min=0, max=65_535, help=f"With --http: listen port ({PORT})."),
]
NeedsKeys = Annotated[
    bool | None,
    typer.Option(
        "--keys/--no-keys", help="With --http: require API keys (default: unless on loopback)."
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--name",
        metavar="HOST",
        help="With --http: a host name of this server, as mcp.example.com; requests to other "
        "names are refused.",
    ),
]
Folders = Annotated[
    list[Path] | None,
    typer.Option(
        "--folder",
        metavar="DIR",
        exists=True,
        file_okay=False,
        help="Let `describe` read pictures in this folder; not with --http.",
    ),
]
Patience = Annotated[
    float,
    typer.Option(
        "--patience",
        metavar="SECONDS",
        min=1,
        help="How long a tool waits for a result before it returns only the job's id.",
    ),
]


def mcp(
    http: Http = False,
    host: Host = None,
    port: Port = None,
    keys: NeedsKeys = None,
    names: Names = None,
    folders: Folders = None,
    patience_s: Patience = PATIENCE_S,
) -> None:
    """Serve jobs to agents as tools (Model Context Protocol)."""
    with errors_to_exit_status():
        settings = load_settings()
        logs.configure(settings, process="mcp")
        tracing.configure("mcp")
        check_tasks("an MCP server")
        if not http:
            _check_unused(host=host, port=port, keys=keys, name=names)
            _serve_stdio(settings, folders or [], patience_s)
        elif folders:
            raise InvalidSetting(
                "--folder cannot be used with --http: only local agents (stdio) may read files"
            )
        else:
            _serve_http(
                settings,
                host or HOST,
                PORT if port is None else port,
                keys,
                names or [],
                patience_s,
            )


def _check_unused(**options: object) -> None:
    """Raise `InvalidSetting` for an option that has no effect without --http."""
    if said := next((name for name, value in options.items() if value not in (None, [])), None):
        raise InvalidSetting(f"--{said} has no effect without --http: add --http, or remove it")


def _serve_stdio(settings: Settings, folders: Sequence[Path], patience_s: float) -> None:
    async def serve() -> None:
        async with AgentsClient(settings) as client, anyio.create_task_group() as tasks:
            serving = await tasks.start(_until_told)
            desk = Desk(client, patience_s=patience_s, folders=folders)
            server = make_server(desk, anybody, is_public=False)
            async with stdio_server() as (reads, writes):
                with serving:
                    await server.run(reads, writes, server.create_initialization_options())
                if serving.cancel_called:  # calls have ended, and their jobs are canceled
                    logging.shutdown()
                    os._exit(0)  # nothing else interrupts the thread that reads standard input
            tasks.cancel_scope.cancel()

    anyio.run(serve)


async def _until_told(*, task_status: TaskStatus[anyio.CancelScope]) -> None:
    """Report a cancel scope to the task group, and cancel it on a signal to end."""
    serving = anyio.CancelScope()
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started(serving)
        async for _ in signals:
            serving.cancel()


def _serve_http(
    settings: Settings,
    host: str,
    port: int,
    keys: bool | None,
    names: Sequence[str],
    patience_s: float,
) -> None:
    if host in ANY and not names:
        raise InvalidSetting(
            f"--host {host}: also give the server's host name, as --name mcp.example.com: "
            "requests to other names are refused (DNS rebinding)"
        )
    asks = needs_keys(settings, host, keys)
    client = AgentsClient(settings)
    found = Keys(client) if asks else None
    desk = Desk(client, patience_s=patience_s)
    server = make_server(desk, anybody if found is None else found.of, is_public=True)
    app = make_app(server, settings, found, [host, *names])
    running = _Server(desk, config_of(app, host, port, settings))
    running.run()
    raise typer.Exit(0 if running.started else 1)


class _Server(uvicorn.Server):
    """A server that, on shutdown, first ends all waits, while it can still cancel their jobs."""

    def __init__(self, desk: Desk, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._desk = desk

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        self._desk.waits.end()
        await super().shutdown(sockets)
