"""`crossmodal gateway`: serve the HTTP interface and the page."""

import asyncio
import logging
from socket import socket
from types import FrameType
from typing import Annotated

import typer
import uvicorn

from crossmodal import logs, tracing
from crossmodal.console import errors_to_exit_status
from crossmodal.jobs.server import check_server
from crossmodal.local.places import Place
from crossmodal.machine import check_tasks
from crossmodal.scratch import remove_abandoned
from crossmodal.settings import load_settings
from producer.gateway.app import make_app
from producer.http.keys_needed import needs_keys
from producer.http.protocol import config_of

log = logging.getLogger(__name__)

CLEAN_S = 5.0  # max time for a canceled request to end


def gateway(
    address: Annotated[
        str,
        typer.Option(
            envvar="CROSSMODAL_GATEWAY_ADDRESS", metavar="IP", help="Address to listen at."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            envvar="CROSSMODAL_GATEWAY_PORT",
            metavar="N",
            min=0,
            max=65_535,
            help="Port to listen at; 0 for any that is free.",
        ),
    ] = 8000,
    keys: Annotated[
        bool | None,
        typer.Option("--keys/--no-keys", help="Require API keys (default: unless on loopback)."),
    ] = None,
    flower: Annotated[
        str, typer.Option(metavar="URL", help="URL of Flower, linked on the page.")
    ] = "",
) -> None:
    """Serve jobs over HTTP, with a page at /."""
    with errors_to_exit_status():
        settings = load_settings()
        logs.configure(settings, process="gateway")
        tracing.configure("gateway")
        check_tasks("a gateway")
        remove_abandoned("upload")
        check_server(settings)
        if port:
            Place("the gateway", "", address, port).check_free()
        asks = needs_keys(settings, address, keys)
        app = make_app(settings, needs_keys=asks, flower_url=flower)
        server = _Server(config_of(app, address, port, settings))
        server.run()
        raise typer.Exit(0 if server.started else 1)


class _Server(uvicorn.Server):
    """A server that ends event streams on shutdown; they would never end by themselves."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        services = self.config.app.state.services  # type: ignore[union-attr]
        services.hub.stop_streams()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Also wait for requests that were canceled, which remove their temporary files."""
        await super().shutdown(sockets)
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=CLEAN_S)
