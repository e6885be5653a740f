"""Starts, watches and restarts a model host and a Celery worker for each device."""

import logging
import os
import shutil
import signal
import socket
import stat
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from crossmodal.errors import BrokerUnavailable, InvalidSetting
from crossmodal.jobs.connection import is_reachable
from crossmodal.jobs.ledger import JobLedger
from crossmodal.processes import Child, wait_until
from crossmodal.settings import Settings
from worker.devices import Device
from worker.health import UnitFiles, age_s, is_locked, lock, supervisors_in

log = logging.getLogger(__name__)

AT_ONCE = 3  # crashes in a row after which a process is started again without delay
BACKOFF_MAX_S = 30.0
HEALTHY_AFTER_S = 60.0  # a process that ran this long has not crashed at its start
HOST_STOP_S = 10.0
COLD_STOP_S = 10.0
START_S = 180.0  # for loading models from a slow disk
RECONNECT_S = 5.0  # after Redis is back, this long a worker may take to consume again
POLL_S = 0.2
MAX_SOCKET_PATH = 103  # bytes; Linux allows a few more than macOS


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
            self.child.kill()  # what it had started must not outlive it
            self._note_crash()
        if time.monotonic() >= self.not_before:
            self.child.start()
            self.not_before = 0.0
            log.info(
                "started %s (pid %s)",
                self.child.name,
                self.child.process and self.child.process.pid,
            )

    def silent_s(self, beat: Path) -> float:
        """Seconds since it touched its heartbeat; one that never has is given time to start."""
        age = age_s(beat)
        if age is not None:
            return age
        return max(0.0, time.monotonic() - self.child.started_at - START_S)

    def _note_crash(self) -> None:
        ran_s = time.monotonic() - self.child.started_at
        self.crashes = 0 if ran_s > HEALTHY_AFTER_S else self.crashes + 1
        again = max(0, self.crashes - AT_ONCE)
        delay_s = min(BACKOFF_MAX_S, 0.5 * 2**again) if again else 0.0
        self.not_before = time.monotonic() + delay_s
        log.error(
            "%s ended with status %s after %.1f s; starting it again in %.1f s",
            self.child.name, self.child.returncode, ran_s, delay_s,
        )  # fmt: skip


class Unit:
    """One device: its model host, and the Celery worker that is joined to it by a socket."""

    def __init__(
        self, settings: Settings, device: Device, queues: list[str], concurrency: int,
        folder: Path,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._answered_at: float | None = None
        self.files = UnitFiles(folder, device.slug)
        self.files.mark.touch()
        self.name = f"{device.slug}.{os.getpid()}@{socket.gethostname()}"
        self.host = Watched(Child(
            f"host {device.name}",
            [sys.executable, "-m", "worker.host", "--socket", str(self.files.socket),
             "--device", device.torch_name, "--beat", str(self.files.host_beat)],
            device.environment(),
            death_signal=signal.SIGKILL,
        ))  # fmt: skip
        self.worker = Watched(Child(
            f"worker {self.name}",
            [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "--pool", "prefork",
             "--hostname", self.name, "--queues", ",".join(queues),
             "--concurrency", str(concurrency),
             "--loglevel", "INFO", "--without-gossip", "--without-mingle"],
            {"CROSSMODAL_HOST_SOCKET": str(self.files.socket), "CUDA_VISIBLE_DEVICES": "",
             "CROSSMODAL_READY_FILE": str(self.files.ready),
             "CROSSMODAL_HEARTBEAT_FILE": str(self.files.worker_beat),
             "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        ))  # fmt: skip

    @property
    def is_ready(self) -> bool:
        """Whether the models are warm and the worker takes jobs."""
        return self._host_is_ready and self.files.ready.exists() and self.files.worker_beat.exists()

    @property
    def _host_is_ready(self) -> bool:
        return self.files.socket.is_socket()  # the host listens only once its models are warm

    def keep_alive(self) -> None:
        """Kill what hangs, start what has ended."""
        self._end_silent_host()
        self._end_silent_worker()
        if not self.host.child.is_alive:
            self.files.socket.unlink(missing_ok=True)  # of a host that was killed
            self.files.host_beat.unlink(missing_ok=True)
        self.host.keep_alive()
        if not self.worker.child.is_alive:
            self.files.ready.unlink(missing_ok=True)
            self.files.worker_beat.unlink(missing_ok=True)
        if self._host_is_ready or self.worker.child.process is not None:
            self.worker.keep_alive()

    def _end_silent_host(self) -> None:
        """A host whose device hangs ends itself; this one cannot even do that."""
        limit_s = max(self._settings.heartbeat_s, self._settings.inference_timeout_s)
        silent_s = self.host.silent_s(self.files.host_beat)
        if self.host.child.is_alive and silent_s > limit_s:
            log.error("%s has not moved for %.0f s: killing it", self.host.child.name, silent_s)
            self.host.child.kill()

    def _end_silent_worker(self) -> None:
        """A worker that does not consume, and has not begun again soon after Redis answered."""
        silent_s = self.worker.silent_s(self.files.worker_beat)
        hangs = self.worker.child.is_alive and silent_s > self._settings.heartbeat_s
        if not hangs or not is_reachable(self._settings):
            self._answered_at = None
        elif self._answered_at is None:
            self._answered_at = time.monotonic()
        elif time.monotonic() - self._answered_at > RECONNECT_S:
            log.error("%s has not consumed for %.0f s: killing it", self.name, silent_s)
            self.worker.child.kill()


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
        self._folder = make_folder(settings.run_dir)
        self._lock = lock(self._folder)
        served = [*queues, *([settings.plain_queue] if settings.plain_queue else [])]
        self._units = [Unit(settings, d, served, concurrency, self._folder) for d in devices]
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
            self._disown()
        for unit in self._units:
            unit.host.child.stop(HOST_STOP_S)
        return drained

    def _disown(self) -> None:
        """Have what was cut off run again at once, and without an attempt being counted."""
        try:
            ledger = JobLedger(self._settings)
            for unit in self._units:
                unit.worker.child.kill()
                ledger.disown(unit.name)
        except BrokerUnavailable as e:
            log.warning("what was stopped runs again only when its leases end: %s", e)

    def _kill_all(self) -> None:
        for unit in self._units:
            unit.worker.child.kill()
            unit.host.child.kill()


def make_folder(run_dir: Path) -> Path:
    """A folder of this process's own for sockets and heartbeats, only for this user.

    Raises `InvalidSetting` where others could put something in its place.
    """
    try:
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in supervisors_in(run_dir):
            if not is_locked(old):
                shutil.rmtree(old, ignore_errors=True)
        folder = run_dir / str(os.getpid())
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as e:
        raise InvalidSetting(f"CROSSMODAL_RUN_DIR={run_dir} cannot be used: {e}") from e
    longest = len(os.fsencode(folder.resolve())) + len("/cuda00.sock")
    if longest > MAX_SOCKET_PATH:
        raise InvalidSetting(
            f"CROSSMODAL_RUN_DIR={run_dir} is too long: a unix socket in it would have a path of "
            f"{longest} bytes, {MAX_SOCKET_PATH} are allowed"
        )
    for above in (run_dir, run_dir.parent):
        if not is_safe(above):
            raise InvalidSetting(
                f"others may write to {above}: set CROSSMODAL_RUN_DIR to a folder of your own"
            )
    return folder


def is_safe(folder: Path) -> bool:
    """Whether nobody but this user and root can put something into the folder's place."""
    found = folder.stat()
    open_to_all = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
    return found.st_uid in (0, os.getuid()) and not open_to_all
