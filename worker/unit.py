"""One device's processes: a model host, and the Celery worker that is joined to it by a socket."""

import logging
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crossmodal.jobs.connection import is_reachable
from crossmodal.jobs.workers import worker_name
from crossmodal.processes import Child, python_module
from crossmodal.settings import Settings
from worker.devices import Device
from worker.health import UnitFiles, WorkerFiles, age_s
from worker.metrics import MetricFiles

log = logging.getLogger(__name__)

MODEL_HOST = "worker.host"
AT_ONCE = 3  # crashes in a row after which a process is started again without delay
BACKOFF_MAX_S = 30.0
RETRY_S = 5.0  # after the system could not start a process
HEALTHY_AFTER_S = 60.0  # a process that ran this long has not crashed at its start
START_S = 180.0  # for loading models from a slow disk
LOOK_AGAIN_S = 3.0  # in which a host that is not dead has moved, though the clock was put forward
RECONNECT_S = 5.0  # after Redis is back, this long a worker may take to consume again


@dataclass
class Watched:
    """A child that is started again, later after each crash in a row.

    `says` are the files that it makes: none may speak for the next one.
    """

    child: Child
    says: tuple[Path, ...] = ()
    crashes: int = 0
    not_before: float = 0.0

    def keep_alive(self) -> None:
        """Start the child if it is not running and its backoff is over."""
        if self.child.is_alive:
            return
        if self.child.process is not None and self.not_before == 0.0:
            self.child.kill()  # what it had started must not outlive it
            self._note_crash()
        for file in self.says:
            file.unlink(missing_ok=True)
        if time.monotonic() >= self.not_before:
            self._start()

    def silent_s(self, beat: Path) -> float:
        """Seconds since it touched its heartbeat; one that never has is given time to start."""
        age = age_s(beat)
        if age is not None:
            return age
        return max(0.0, time.monotonic() - self.child.started_at - START_S)

    def _start(self) -> None:
        try:
            self.child.start()
        except OSError as e:  # no memory or no process is left; the others are watched on
            log.error("%s cannot be started: %s; again in %g s", self.child.name, e, RETRY_S)
            self.not_before = time.monotonic() + RETRY_S
        else:
            self.not_before = 0.0
            log.info("started %s (pid %s)", self.child.name, self.child.pid)

    def _note_crash(self) -> None:
        ran_s = time.monotonic() - self.child.started_at
        self.crashes = 0 if ran_s > HEALTHY_AFTER_S else self.crashes + 1
        again = max(0, self.crashes - AT_ONCE)
        delay_s = min(BACKOFF_MAX_S, 0.5 * 2 ** min(again, 10)) if again else 0.0
        self.not_before = time.monotonic() + delay_s
        log.error(
            "%s ended with status %s after %.1f s; starting it again in %.1f s",
            self.child.name, self.child.returncode, ran_s, delay_s,
        )  # fmt: skip


@dataclass(frozen=True)
class Crew:
    """Queues of one lane, and how many of their messages a Celery worker has in hand.

    Lanes are counted apart, so that no interactive job waits for a bulk message to end.
    """

    queues: list[str]
    concurrency: int
    is_bulk: bool = False


class CeleryWorker:
    """A Celery worker that is restarted when it ends, and killed when it does not consume."""

    def __init__(
        self, settings: Settings, device: Device, crews: Sequence[Crew], unit: UnitFiles,
        metrics: MetricFiles | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._answered_at: float | None = None
        self.files = WorkerFiles(unit, device.slug)
        self.files.make_mark(needs_models=True)
        self.name = worker_name(device.slug, os.getpid())
        in_hand = {crew.is_bulk: crew.concurrency for crew in crews}
        self.watched = Watched(Child(
            f"worker {self.name}",
            python_module(
                "worker.celery", "worker", "--hostname", self.name,
                "--queues", ",".join(queue for crew in crews for queue in crew.queues),
                "--concurrency", str(in_hand.get(False, 1)),
                "--loglevel", settings.log_level, "--without-gossip", "--without-mingle",
            ),
            {**_counting(metrics, f"{device.slug}-worker"),
             "CROSSMODAL_HOST_SOCKET": str(unit.socket), "CUDA_VISIBLE_DEVICES": "",
             "CROSSMODAL_BULK_CONCURRENCY": str(in_hand.get(True, 1)),
             "CROSSMODAL_READY_FILE": str(self.files.ready),
             "CROSSMODAL_HEARTBEAT_FILE": str(self.files.beat),
             "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        ), says=(self.files.ready, self.files.beat))  # fmt: skip

    @property
    def child(self) -> Child:
        return self.watched.child

    @property
    def is_ready(self) -> bool:
        """Whether it takes jobs."""
        return self.files.ready.exists() and self.files.beat.exists()

    @property
    def has_crashed(self) -> bool:
        """Whether it ended by itself when it had begun to take jobs; to be asked once it has."""
        return self.is_ready and self.child.returncode not in (0, None)

    def keep_alive(self, may_start: bool) -> None:
        """Kill it if it hangs; start it again if it has ended, or may start for the first time."""
        self._end_silent()
        if may_start or self.child.process is not None:
            self.watched.keep_alive()

    def _end_silent(self) -> None:
        """A worker that does not consume, and has not begun again soon after Redis answered."""
        silent_s = self.watched.silent_s(self.files.beat)
        hangs = self.child.is_alive and silent_s > self._settings.heartbeat_s
        if not hangs or not is_reachable(self._settings):
            self._answered_at = None
        elif self._answered_at is None:
            self._answered_at = time.monotonic()
        elif time.monotonic() - self._answered_at > RECONNECT_S:
            log.error("%s has not consumed for %.0f s: killing it", self.name, silent_s)
            self.child.kill()


class Unit:
    """One device with its processes, which count in the files of `metrics`.

    `host` is the module that its model host runs.
    """

    def __init__(
        self, settings: Settings, device: Device, crews: Sequence[Crew], files: UnitFiles,
        metrics: MetricFiles | None = None, host: str = MODEL_HOST,
    ) -> None:  # fmt: skip
        self._settings = settings
        self.files = files
        self._silent_since: float | None = None  # by the monotonic clock
        name = f"{device.slug}-host"
        gauges = metrics.gauges(name) if metrics else ()
        self.host = Watched(Child(
            f"host {device.name}",
            python_module(
                host, "--socket", str(self.files.socket), "--device", device.torch_name,
                "--name", device.name, "--beat", str(self.files.host_beat),
            ),
            {**_counting(metrics, name), **device.environment()},
            death_signal=signal.SIGKILL,
        ), says=(files.socket, files.host_beat, *gauges))  # fmt: skip
        self.worker = CeleryWorker(settings, device, crews, files, metrics)

    @property
    def is_ready(self) -> bool:
        """Whether the models are warm and the worker takes jobs."""
        return self._host_is_ready and self.worker.is_ready

    def stop_host(self, timeout_s: float) -> None:
        """End the model host, when the worker needs it no more."""
        self.host.child.stop(timeout_s)

    def kill_host(self) -> None:
        """End the model host, and what it may have left behind."""
        self.host.child.kill()

    @property
    def _host_is_ready(self) -> bool:
        # The host listens only once its models are warm.
        return self.files.socket.is_socket()

    def keep_alive(self) -> None:
        """Kill what hangs, start what has ended."""
        self._end_silent_host(self.host)
        self.host.keep_alive()
        self.worker.keep_alive(may_start=self._host_is_ready)

    def _end_silent_host(self, host: Watched) -> None:
        """A host whose device hangs ends itself; this one cannot even do that."""
        limit_s = max(self._settings.heartbeat_s, self._settings.inference_timeout_s)
        silent_s = host.silent_s(self.files.host_beat)
        if not host.child.is_alive or silent_s <= limit_s:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = time.monotonic()
        elif time.monotonic() - self._silent_since > LOOK_AGAIN_S:
            log.error("%s has not moved for %.0f s: killing it", host.child.name, silent_s)
            host.child.kill()


def _counting(metrics: MetricFiles | None, name: str) -> dict[str, str]:
    return metrics.environment(name) if metrics else {}
