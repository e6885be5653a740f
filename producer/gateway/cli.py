"""`crossmodal gateway`: serve the HTTP interface and the page."""

import logging
from types import FrameType
from typing import Annotated

import typer
import uvicorn

from crossmodal import logs, tracing
from crossmodal.addresses import LOOPBACK
from crossmodal.console import errors_to_exit_status
from crossmodal.errors import InvalidSetting
from crossmodal.settings import Settings, load_settings
from producer.client import Client
from producer.gateway.app import make_app

MOST_CONNECTIONS = 5_000
STOP_S = 10  # for requests that are being answered

log = logging.getLogger(__name__)


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
        typer.Option(
            "--keys/--no-keys", help="Ask for API keys (by default only where not on loopback)."
        ),
    ] = None,
    flower: Annotated[
        str, typer.Option(metavar="URL", help="Of Flower, for a link on the page.")
    ] = "",
) -> None:
    """Serve jobs over HTTP, with a page at /."""
    with errors_to_exit_status():
        settings = load_settings()
        logs.configure(settings, process="gateway")
        tracing.configure("gateway")
        needs_keys = _needs_keys(settings, address, keys)
        app = make_app(settings, needs_keys=needs_keys, flower_url=flower)
        config = uvicorn.Config(
            app, host=address, port=port, log_config=None, access_log=False, http="h11",
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=STOP_S, server_header=False,
        )  # fmt: skip
        server = _Server(config)
        server.run()
        raise typer.Exit(0 if server.started else 1)


class _Server(uvicorn.Server):
    """Ends event streams when it is told to stop: they would never end by themselves."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        services = self.config.app.state.services  # type: ignore[union-attr]
        services.hub.stop_streams()
        super().handle_exit(sig, frame)


def _needs_keys(settings: Settings, address: str, asked: bool | None) -> bool:
    """Whether callers need keys. Raises `InvalidSetting` where others would need none."""
    local = address in LOOPBACK
    if asked is None:
        asked = not local
    if not asked and not local:
        raise InvalidSetting(
            f"--no-keys is for loopback addresses only, and {address} is none: everybody who "
            "reaches it could use the models"
        )
    with Client(settings) as client:
        if asked and not any(key.revoked_at is None for key in client.keys.list()):
            raise InvalidSetting(
                f"listening at {address} needs API keys, and there is none: "
                "`crossmodal keys create NAME` makes one"
            )
    return asked
