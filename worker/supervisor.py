"""Keeps the processes of all devices of a machine running, and stops them gracefully."""

import logging
import os
import shutil
import signal
import stat
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from types import FrameType

from crossmodal.errors import BrokerUnavailable, InvalidModel, InvalidSetting, described
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.record import ModelInfo, ServedKind
from crossmodal.jobs.runners import Runner
from crossmodal.models.catalog import ModelFolder, Served
from crossmodal.processes import adopt_orphans, collect_orphans, on_end, wait_until
from crossmodal.settings import Settings
from worker.crews import Crew, queues_of
from worker.devices import Device
from worker.health import UnitFiles, is_locked, lock, supervisors_in
from worker.host_process import MODEL_HOST
from worker.metrics_server import MetricsServer
from worker.serving import ServedModel
from worker.unit import Unit

log = logging.getLogger(__name__)

HOST_STOP_S = 10.0
COLD_STOP_S = 10.0
POLL_S = 0.2
MAX_SOCKET_PATH = 103  # bytes; Linux allows a few more than macOS


class Supervisor:
    """The supervisor of all devices, which runs their units until a signal stops it.

    The first SIGTERM or SIGINT drains: no new jobs, and running ones finish. The second one, or
    the end of `drain_s`, stops at once: running jobs go back to the queue.
    """

    def __init__(
        self,
        settings: Settings,
        devices: list[Device],
        crews: Sequence[Crew],
        served: Served,
        ready_file: Path | None = None,
        host: str = MODEL_HOST,
    ) -> None:
        self._settings = settings
        self._ready_file = ready_file
        self._was_ready = False
        self._folder = make_folder(settings.run_dir)
        self._lock = lock(self._folder)
        self._metrics = MetricsServer.start(settings, self._folder)
        files = self._metrics.files if self._metrics else None
        queues = {queue for crew in crews for queue in crew.queues}
        self._units = [
            Unit(
                settings,
                device,
                served_models(served, queues, self._folder, device),
                crews,
                UnitFiles(self._folder, device.slug),
                files,
                host,
            )
            for device in devices
        ]
        self._queues = queues
        self._workers = [unit.worker for unit in self._units]
        self._signals = 0

    def run(self) -> int:
        """Block until stopped; return exit status 0 if all running jobs were finished, else 1."""
        on_end(self._on_signal)
        adopt_orphans()
        try:
            while self._signals == 0:
                for unit in self._units:
                    unit.keep_alive()
                self._announce_once()
                self._end_broken()
                collect_orphans(self._own())
                time.sleep(POLL_S)
            return 0 if self._drain() else 1
        finally:
            self._kill_all()
            if self._metrics is not None:
                self._metrics.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _announce_once(self) -> None:
        if self._was_ready or not all(unit.is_ready for unit in self._units):
            return
        self._was_ready = True
        log.info("ready: %s", ", ".join(worker.child.name for worker in self._workers))
        if self._ready_file is not None:
            self._ready_file.touch()

    def _end_broken(self) -> None:
        """Raise `InvalidModel` if no device has a model that can be loaded."""
        if all(unit.is_broken for unit in self._units):
            failures = [host.failure for unit in self._units for host in unit.hosts]
            raise InvalidModel("; ".join({one.message for one in failures if one is not None}))

    def _own(self) -> set[int]:
        """Return the ids of the processes that it has started itself."""
        children = (child for unit in self._units for child in unit.children)
        return {child.pid for child in children if child.pid is not None}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1

    def _drain(self) -> bool:
        """Drain; return whether every worker finished its jobs in time, before a second signal."""
        log.info("draining: finishing running jobs, for up to %g s", self._settings.drain_s)
        workers = [worker.child for worker in self._workers]
        for worker in workers:
            worker.send(signal.SIGTERM)

        def settled() -> bool:
            ended = [worker for worker in self._workers if not worker.child.is_alive]
            if len(ended) < len(workers):  # their silence must not fail the others' liveness probe
                for worker in ended:
                    worker.files.mark.unlink(missing_ok=True)
            return self._signals > 1 or len(ended) == len(workers)

        wait_until(settled, self._settings.drain_s)
        drained = not any(w.is_alive for w in workers)
        if not drained:
            log.warning("stopping now; running jobs go back to the queue")
            for worker in workers:
                worker.send(signal.SIGQUIT)
            wait_until(lambda: not any(w.is_alive for w in workers), COLD_STOP_S)
            self._disown()
        for unit in self._units:
            unit.stop_hosts(HOST_STOP_S)
        return drained and not any(worker.has_crashed for worker in self._workers)

    def _disown(self) -> None:
        """Return interrupted jobs to the queue at once, without counting their attempts."""
        try:
            runner, ledger = Runner(self._settings), JobLedger(self._settings)
            plain = self._settings.plain_queue
            for worker in self._workers:
                worker.child.kill()
                runner.run(ledger.disown(worker.name, self._queues - {plain}))
        except BrokerUnavailable as e:
            log.warning("the stopped jobs run again only when their leases end: %s", e)

    def _kill_all(self) -> None:
        for worker in self._workers:
            worker.child.kill()
        for unit in self._units:
            unit.kill_hosts()


def served_models(
    served: Served, queues: Collection[str], folder: Path, device: Device
) -> list[ServedModel]:
    """Return the models a device may serve from some queues: the default first, then by name."""
    models = [
        ServedModel(
            info=_info(found, is_default=found.name == served.default),
            folder=found.source,
            socket=folder / f"{device.slug}{f'-{number}' if number else ''}.sock",
            queues=tuple(q for q in queues_of(found, served) if q in queues),
            size=found.weights_bytes,
            is_pinned=found.config.pinned,
        )
        for number, found in enumerate(served.folders)
    ]
    return [model for model in models if model.queues]


def _info(found: ModelFolder, *, is_default: bool) -> ModelInfo:
    """Return what is known of a model before it is loaded."""
    return ModelInfo(
        name=found.name,
        version=found.version,
        format=found.format,
        kinds={kind: ServedKind() for kind in found.kinds},
        default_for=found.kinds if is_default else (),
        aliases=found.config.aliases,
        description=found.config.description,
    )


def make_folder(run_dir: Path) -> Path:
    """Make this process's folder for sockets and heartbeats, accessible only to this user.

    Raises `InvalidSetting` if other users could replace it.
    """
    try:
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_own(run_dir, run_dir.parent)  # before anything is removed there
        for old in supervisors_in(run_dir):
            if not is_locked(old):
                shutil.rmtree(old, ignore_errors=True)
        folder = run_dir / str(os.getpid())
        folder.mkdir(mode=0o700, exist_ok=True)
        check_own(folder)
    except OSError as e:
        raise InvalidSetting(f"CROSSMODAL_RUN_DIR={run_dir} cannot be used: {described(e)}") from e
    longest = len(os.fsencode(folder.resolve())) + len("/cuda00-00.sock")
    if longest > MAX_SOCKET_PATH:
        raise InvalidSetting(
            f"CROSSMODAL_RUN_DIR={run_dir} is too long: a unix socket in it would have a path of "
            f"{longest} bytes, {MAX_SOCKET_PATH} are allowed: set it to a folder of a shorter path"
        )
    return folder


def check_own(*folders: Path) -> None:
    """Raise `InvalidSetting` if other users could replace a folder or what is in it.

    A symbolic link and its target must both belong to this user or to root.
    """
    for folder in folders:
        found = folder.stat()
        open_to_all = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
        if open_to_all or not {found.st_uid, folder.lstat().st_uid} <= {0, os.getuid()}:
            raise InvalidSetting(
                f"others may write to {folder}: set CROSSMODAL_RUN_DIR to a folder of your own"
            )
