"""Serves what all processes of a worker count, in Prometheus's format.

Each process writes to files of its own in one folder (prometheus_client's multiprocess mode), by
the part that it plays: one that is started again counts on where the one before it stopped.
"""

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Metric, multiprocess, start_http_server
from prometheus_client.registry import Collector

from crossmodal.errors import InvalidSetting, described
from crossmodal.metrics import FOLDER, NAME
from crossmodal.settings import Settings


class MetricFiles(Collector):
    """The files that processes write to, read together."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)

    def environment(self, name: str) -> dict[str, str]:
        """Variables for a process that is to write here; no other that lives has its name."""
        return {FOLDER: str(self.folder), NAME: name}

    def gauges(self, name: str) -> tuple[Path, ...]:
        """The files with what is only true while the process of this name lives."""
        return (self.folder / f"gauge_livemostrecent_{name}.db",)

    def collect(self) -> Iterable[Metric]:
        # One that has just been made is empty.
        files = [str(file) for file in self.folder.glob("*.db") if file.stat().st_size]
        merge: Any = multiprocess.MultiProcessCollector.merge  # it has no types
        return list(merge(files))


def serve(
    registry: CollectorRegistry, address: str, port: int
) -> tuple[WSGIServer, threading.Thread]:
    """Answer `/metrics` from a thread. Raises `InvalidSetting` where that is not possible."""
    try:
        return start_http_server(port, address, registry)
    except OSError as e:  # also of an address that is none
        raise InvalidSetting(
            f"CROSSMODAL_METRICS_PORT={port} cannot be listened at on {address!r}: {described(e)}"
        ) from e


class MetricsServer:
    """Answers `http://ADDRESS:PORT/metrics` from a thread."""

    def __init__(self, files: MetricFiles, address: str, port: int) -> None:
        registry = CollectorRegistry()
        registry.register(files)
        self.files = files
        self._server, self._thread = serve(registry, address, port)

    @classmethod
    def start(cls, settings: Settings, folder: Path) -> Self | None:
        """The server that the settings ask for, if they do. Raises `InvalidSetting`."""
        if not settings.metrics_port:
            return None
        files = MetricFiles(folder / "metrics")
        return cls(files, settings.metrics_address, settings.metrics_port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
