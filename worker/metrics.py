"""Serves what all processes of a worker count, in Prometheus's format.

Each process writes to files of its own in one folder (prometheus_client's multiprocess mode),
which outlive it: what has been counted stays so. The supervisor, who only reads them, puts
those of the dead together, so that processes may come and go for weeks.
"""

import logging
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Metric, multiprocess, start_http_server
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.registry import Collector

from crossmodal.errors import InvalidSetting, described
from crossmodal.settings import Settings

log = logging.getLogger(__name__)

TOTALS = "ended"  # stands for the process id, in the files of all processes that have ended
ADDED_UP = ("counter", "histogram")
TIDY_S = 60.0


class MetricFiles(Collector):
    """The files that processes write to, read together."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()  # no reader may find a file both in the totals and alone
        self._tidied_at = time.monotonic()
        folder.mkdir(mode=0o700, exist_ok=True)

    def environment(self) -> dict[str, str]:
        """Variables for processes that are to write here."""
        return {"PROMETHEUS_MULTIPROC_DIR": str(self.folder)}

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            self._bury_dead()
            # One that has just been made is empty.
            files = [str(file) for file in self.folder.glob("*.db") if file.stat().st_size]
            return list(_untyped(multiprocess.MultiProcessCollector).merge(files))

    def tidy(self, every_s: float = TIDY_S) -> None:
        """Have one file a kind, of all processes that have ended; may be called often."""
        if time.monotonic() - self._tidied_at < every_s:
            return
        self._tidied_at = time.monotonic()
        try:
            with self._lock:
                self._bury_dead()
        except (OSError, RuntimeError) as e:  # no reason to stop working
            log.warning("the files of metrics in %s cannot be put together: %s", self.folder, e)

    def _bury_dead(self) -> None:
        writers = {file.stem.rpartition("_")[2] for file in self.folder.glob("*.db")}
        for pid in writers - {TOTALS}:
            if not _is_running(int(pid)):
                for kind in ADDED_UP:
                    self._add_to_totals(kind, self.folder / f"{kind}_{pid}.db")
                _untyped(multiprocess.mark_process_dead)(int(pid), str(self.folder))

    def _add_to_totals(self, kind: str, file: Path) -> None:
        if not file.exists():
            return
        if file.stat().st_size:
            totals = _untyped(MmapedDict)(str(self.folder / f"{kind}_{TOTALS}.db"))
            for key, value, _, _ in _untyped(MmapedDict).read_all_values_from_file(str(file)):
                totals.write_value(key, totals.read_value(key)[0] + value, 0.0)
            totals.close()
        file.unlink()


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


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _untyped(thing: Any) -> Any:
    """Something of prometheus_client's that has no types."""
    return thing
