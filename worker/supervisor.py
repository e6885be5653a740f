"""Starts, watches and restarts a model host and a Celery worker for each device."""

import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from crossmodal.processes import Child, wait_until
from crossmodal.settings import Settings
from worker.devices import Device

log = logging.getLogger(__name__)

BACKOFF_MAX_S = 30.0
HEALTHY_AFTER_S = 60.0  # a process that ran this long has not crashed at its start
HOST_STOP_S = 10.0
COLD_STOP_S = 10.0
POLL_S = 0.2


@dataclass
class Watched:
    """A child that is started again, later after each crash in a row."""

    child: Child
    crashes: int = 0
    not_before: float = 0.0

    def keep_alive(self) -> None:
        """Start the child if it is not running and its backoff is over."""
        if self.child.is_alive:
            return
        if self.child.process is not None and self.not_before == 0.0:
            self._note_crash()
        if time.monotonic() >= self.not_before:
            self.child.start()
            self.not_before = 0.0
            log.info(
                "started %s (pid %s)",
                self.child.name,
                self.child.process and self.child.process.pid,
            )

    def _note_crash(self) -> None:
        ran_s = time.monotonic() - self.child.started_at
        self.crashes = 1 if ran_s > HEALTHY_AFTER_S else self.crashes + 1
        delay_s = min(BACKOFF_MAX_S, 0.25 * 2**self.crashes)
        self.not_before = time.monotonic() + delay_s
        log.error(
            "%s ended with status %s after %.1f s; starting it again in %.1f s",
            self.child.name, self.child.returncode, ran_s, delay_s,
        )  # fmt: skip


class Unit:
    """One device: its model host, and the Celery worker that is joined to it by a socket."""

    def __init__(self, device: Device, queues: list[str], concurrency: int, folder: Path) -> None:
        self.socket = folder / f"{device.slug}.sock"
        self._ready_file = folder / f"{device.slug}.ready"
        self.host = Watched(Child(
            f"host {device.name}",
            [sys.executable, "-m", "worker.host",
             "--socket", str(self.socket), "--device", device.torch_name],
            device.environment(),
        ))  # fmt: skip
        name = f"{device.slug}.{os.getpid()}@{socket.gethostname()}"
        self.worker = Watched(Child(
            f"worker {name}",
            [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "--pool", "prefork",
             "--hostname", name, "--queues", ",".join(queues), "--concurrency", str(concurrency),
             "--loglevel", "INFO", "--without-gossip", "--without-mingle"],
            {"CROSSMODAL_HOST_SOCKET": str(self.socket), "CUDA_VISIBLE_DEVICES": "",
             "CROSSMODAL_READY_FILE": str(self._ready_file),
             "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        ))  # fmt: skip

    @property
    def is_ready(self) -> bool:
        """Whether the models are warm and the worker takes jobs."""
        return self._host_is_ready and self._ready_file.exists()

    @property
    def _host_is_ready(self) -> bool:
        return self.socket.is_socket()  # the host listens only once its models are warm

    def keep_alive(self) -> None:
        if not self.host.child.is_alive:
            self.socket.unlink(missing_ok=True)  # of a host that was killed
        self.host.keep_alive()
        if not self.worker.child.is_alive:
            self._ready_file.unlink(missing_ok=True)
        if self._host_is_ready or self.worker.child.process is not None:
            self.worker.keep_alive()


class Supervisor:
    """Runs the units of all devices until it is told to stop.

    The first SIGTERM or SIGINT drains: no new jobs, and what runs is finished. The second
    one, or `drain_s`, stops at once: what runs goes back to the queue.
    """

    def __init__(
        self,
        settings: Settings,
        devices: list[Device],
        queues: list[str],
        concurrency: int,
        ready_file: Path | None = None,
    ) -> None:
        self._settings = settings
        self._ready_file = ready_file
        self._was_ready = False
        self._folder = Path(tempfile.mkdtemp(prefix="crossmodal-"))  # mode 0700
        served = [*queues, *([settings.plain_queue] if settings.plain_queue else [])]
        self._units = [Unit(d, served, concurrency, self._folder) for d in devices]
        self._signals = 0

    def run(self) -> int:
        """Block until stopped; the exit status is 0 when everything that ran was finished."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        try:
            while self._signals == 0:
                for unit in self._units:
                    unit.keep_alive()
                self._announce_once()
                time.sleep(POLL_S)
            return 0 if self._drain() else 1
        finally:
            self._kill_all()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _announce_once(self) -> None:
        if self._was_ready or not all(unit.is_ready for unit in self._units):
            return
        self._was_ready = True
        log.info("ready: %s", ", ".join(unit.worker.child.name for unit in self._units))
        if self._ready_file is not None:
            self._ready_file.touch()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1

    def _drain(self) -> bool:
        """Whether every worker finished what it ran, in time and without being told twice."""
        log.info("draining: finishing what runs, for up to %g s", self._settings.drain_s)
        workers = [unit.worker.child for unit in self._units]
        for worker in workers:
            worker.send(signal.SIGTERM)

        def settled() -> bool:
            return self._signals > 1 or not any(w.is_alive for w in workers)

        wait_until(settled, self._settings.drain_s)
        drained = not any(w.is_alive for w in workers)
        if not drained:
            log.warning("stopping now; what still runs goes back to the queue")
            for worker in workers:
                worker.send(signal.SIGQUIT)
            wait_until(lambda: not any(w.is_alive for w in workers), COLD_STOP_S)
        for unit in self._units:
            unit.host.child.stop(HOST_STOP_S)
        return drained

    def _kill_all(self) -> None:
        for unit in self._units:
            unit.worker.child.kill()
            unit.host.child.kill()
