"""A model host as a program of its own, whatever models it serves.

Loads them, warms up, and only then listens, so that whoever can connect is served.
"""

import argparse
import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from crossmodal import logs, tracing
from crossmodal.errors import CrossmodalError
from crossmodal.files import write_whole
from crossmodal.jobs.record import Failure
from crossmodal.settings import Settings, load_settings
from worker.host.server import ModelHost, serve
from worker.serving import failure_file

log = logging.getLogger("worker.host")

Load = Callable[[Settings, str, str], ModelHost]
"""Makes a host of settings, a device as torch calls it, and what the device is called here."""


def run(load: Load) -> None:
    """Be the host that `load` makes, until SIGTERM; does not return."""
    args = _arguments()
    name = args.name or args.device
    logging.getLogger("gensim").setLevel(logging.WARNING)
    try:
        settings = load_settings()
        logs.configure(settings, process="host", device=name)
        host = load(settings, args.device, name)
        tracing.configure("host")  # only now that the lanes have been forked
        asyncio.run(serve(host, args.socket, settings.inference_timeout_s, args.beat))
    except CrossmodalError as e:
        log.error("%s: %s", e.code, e)
        write_whole(failure_file(args.socket), Failure.of(e).model_dump_json())
        raise SystemExit(1) from e
    host.batcher.close()
    tracing.flush()
    logging.shutdown()
    os._exit(0)  # a batch that still runs would keep the interpreter from ending


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -P -m worker.host", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", help="what the device is called; a pinned process has only one")
    parser.add_argument("--beat", type=Path, help="touched every second while all is well")
    return parser.parse_args()
