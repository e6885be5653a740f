"""Serves the metrics of all processes of a worker, in Prometheus's format.

Each process writes to its own files in one folder (prometheus_client's multiprocess mode), named
by its role: a restarted process continues the counts of its predecessor.
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
    """A collector that merges the files of all processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)

    def environment(self, name: str) -> dict[str, str]:
        """Return variables for a process that writes here; no other live one has its name."""
        return {FOLDER: str(self.folder), NAME: name}

    def gauges(self, name: str) -> tuple[Path, ...]:
        """Return the files of gauges that are valid only while the process of this name lives."""
        return (self.folder / f"gauge_livemostrecent_{name}.db",)

    def collect(self) -> Iterable[Metric]:
        # A new file is still empty.
        files = [str(file) for file in self.folder.glob("*.db") if file.stat().st_size]
        merge: Any = multiprocess.MultiProcessCollector.merge  # untyped
        return list(merge(files))


def serve(
    registry: CollectorRegistry, address: str, port: int
) -> tuple[WSGIServer, threading.Thread]:
    """Serve `/metrics` from a thread. Raises `InvalidSetting` if it cannot listen."""
    try:
        return start_http_server(port, address, registry)
    except OSError as e:  # also for an invalid address
        raise InvalidSetting(
            f"CROSSMODAL_METRICS_PORT={port}: cannot listen on {address!r}: {described(e)}"
        ) from e


class MetricsServer:
    """A server of `http://ADDRESS:PORT/metrics`, in a thread."""

    def __init__(self, files: MetricFiles, address: str, port: int) -> None:
        registry = CollectorRegistry()
        registry.register(files)
        self.files = files
        self._server, self._thread = serve(registry, address, port)

    @classmethod
    def start(cls, settings: Settings, folder: Path) -> Self | None:
        """Start a server if the settings give a port. Raises `InvalidSetting`."""
        if not settings.metrics_port:
            return None
        files = MetricFiles(folder / "metrics")
        return cls(files, settings.metrics_address, settings.metrics_port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
