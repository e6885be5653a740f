"""The program of a model host, whatever models it serves.

Loads them, warms up, and only then listens, so that every connection is served.
"""

import argparse
import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from crossmodal import logs, tracing
from crossmodal.errors import CrossmodalError, ModelHostUnavailable, described
from crossmodal.files import write_whole
from crossmodal.jobs.record import Failure
from crossmodal.machine import is_shortage
from crossmodal.settings import Settings, load_settings
from worker.host.server import ModelHost, serve
from worker.serving import failure_file

log = logging.getLogger("worker.host")

Load = Callable[[Settings, str, str], ModelHost]
"""Makes a host from settings, a torch device, and the device's name."""


def run(load: Load) -> None:
    """Run the host that `load` makes, until SIGTERM; does not return."""
    args = _arguments()
    name = args.name or args.device
    try:
        settings = load_settings()
        logs.configure(settings, process="host", device=name)
        host = load(settings, args.device, name)
        tracing.configure("host")  # only now that the lanes have been forked
        asyncio.run(serve(host, args.socket, settings.inference_timeout_s, args.beat))
    except CrossmodalError as e:
        _give_up(args.socket, e)
    except (OSError, RuntimeError) as e:
        if not is_shortage(e):
            raise
        _give_up(args.socket, ModelHostUnavailable(f"the host cannot start: {described(e)}"))
    host.batcher.close()
    tracing.flush()
    logging.shutdown()
    os._exit(0)  # a batch that still runs would keep the interpreter from ending


def _give_up(socket: Path, error: CrossmodalError) -> NoReturn:
    """Exit, and leave the reason in the failure file."""
    log.error("%s: %s", error.code, error)
    write_whole(failure_file(socket), Failure.of(error).model_dump_json())
    raise SystemExit(1) from error


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -P -m worker.host", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", help="the device's name, for a process that sees only one device")
    parser.add_argument(
        "--beat", type=Path, help="file touched every second while the host is healthy"
    )
    return parser.parse_args()
