"""One device's processes: a host for each model, and the Celery worker that uses them."""

import logging
import os
import time
from collections.abc import Iterable, Sequence

from crossmodal.jobs.connection import is_reachable
from crossmodal.jobs.workers import worker_name
from crossmodal.processes import Child, python_module
from crossmodal.settings import Settings
from worker.capacity import capacity, needed
from worker.crews import Crew
from worker.devices import Device
from worker.health import UnitFiles, WorkerFiles
from worker.host_process import MODEL_HOST, HostProcess
from worker.metrics_server import MetricFiles
from worker.serving import ServedModel, Serving
from worker.watched import Watched

log = logging.getLogger(__name__)

RECONNECT_S = 5.0  # max time for a worker to consume again after Redis is back


class CeleryWorker:
    """A Celery worker process, restarted when it ends and killed when it does not consume."""

    def __init__(
        self,
        settings: Settings,
        device: Device,
        crews: Sequence[Crew],
        unit: UnitFiles,
        metrics: MetricFiles | None = None,
    ) -> None:
        self._settings = settings
        self._answered_at: float | None = None
        self.files = WorkerFiles(unit, device.slug)
        self.files.make_mark(needs_models=True)
        self.name = worker_name(device.slug, os.getpid())
        in_hand = {crew.is_bulk: crew.concurrency for crew in crews}
        self.watched = Watched(
            Child(
                f"worker {self.name}",
                python_module(
                    "worker.celery",
                    "worker",
                    "--hostname",
                    self.name,
                    "--queues",
                    ",".join(queue for crew in crews for queue in crew.queues),
                    "--concurrency",
                    str(in_hand.get(False, 1)),
                    "--loglevel",
                    settings.log_level,
                    "--without-gossip",
                    "--without-mingle",
                ),
                {
                    **counting(metrics, f"{device.slug}-worker"),
                    "CROSSMODAL_MODELS_FILE": str(Serving(unit.folder, device.slug).models_file),
                    "CUDA_VISIBLE_DEVICES": "",
                    "CROSSMODAL_BULK_CONCURRENCY": str(in_hand.get(True, 1)),
                    "CROSSMODAL_READY_FILE": str(self.files.ready),
                    "CROSSMODAL_HEARTBEAT_FILE": str(self.files.beat),
                    "OMP_NUM_THREADS": "1",
                    "OPENBLAS_NUM_THREADS": "1",
                },
            ),
            says=(self.files.ready, self.files.beat),
        )

    @property
    def child(self) -> Child:
        return self.watched.child

    @property
    def is_ready(self) -> bool:
        """Whether it takes jobs."""
        return self.files.ready.exists() and self.files.beat.exists()

    @property
    def has_crashed(self) -> bool:
        """Whether it has ended with an error after it had begun to take jobs."""
        return self.is_ready and self.child.returncode not in (0, None)

    def keep_alive(self, may_start: bool) -> None:
        """Kill it if it hangs; restart it if it has ended, or start it first if `may_start`."""
        self._end_silent()
        if may_start or self.child.process is not None:
            self.watched.keep_alive()

    def _end_silent(self) -> None:
        """Kill a worker that does not consume, even `RECONNECT_S` after Redis has answered."""
        silent_s = self.watched.silent_s(self.files.beat)
        hangs = self.child.is_alive and silent_s > self._settings.heartbeat_s
        if not hangs or not is_reachable(self._settings):
            self._answered_at = None
        elif self._answered_at is None:
            self._answered_at = time.monotonic()
        elif time.monotonic() - self._answered_at > RECONNECT_S:
            log.error("%s has consumed nothing for %.0f s: killing it", self.name, silent_s)
            self.child.kill()


class Unit:
    """One device with its processes, which write metrics to the files of `metrics`.

    It may serve `models`, the default one first; those that fit are loaded, one after another,
    until the worker chooses. `host` is the Python module of the model hosts.
    """

    def __init__(
        self,
        settings: Settings,
        device: Device,
        models: Sequence[ServedModel],
        crews: Sequence[Crew],
        files: UnitFiles,
        metrics: MetricFiles | None = None,
        host: str = MODEL_HOST,
    ) -> None:
        self.files = files
        self._serving = Serving(files.folder, device.slug)
        room = capacity(settings, device)
        self._serving.write(
            device.name, [m.model_copy(update={"needs": needed(m, device)}) for m in models], room
        )
        self._serving.want(fitting(self._serving.read_models(), room))
        self.hosts = [
            HostProcess(
                settings,
                device,
                model,
                counting(metrics, _part(device, number)) | self._turn(device, len(models)),
                metrics.gauges(_part(device, number)) if metrics else (),
                host,
            )
            for number, model in enumerate(models)
        ]
        self.worker = CeleryWorker(settings, device, crews, files, metrics)

    def _turn(self, device: Device, models: int) -> dict[str, str]:
        """Return variables for hosts that share a GPU, so that their batches take turns."""
        if device.name == "cpu" or models < 2:
            return {}
        return {"CROSSMODAL_TURN_FILE": str(self.files.folder / f"{device.slug}.turn")}

    @property
    def is_ready(self) -> bool:
        """Whether the worker takes jobs of the first wanted model that is not broken."""
        wanted = self._serving.wanted
        able = (h for h in self.hosts if h.model.name in wanted and not h.is_broken)
        first = next(able, None)
        return first is not None and first.is_ready and self.worker.is_ready

    @property
    def is_broken(self) -> bool:
        """Whether all of its models are broken."""
        return all(host.is_broken for host in self.hosts)

    @property
    def children(self) -> list[Child]:
        """All processes that it starts."""
        return [self.worker.child, *(host.child for host in self.hosts)]

    def stop_hosts(self, timeout_s: float) -> None:
        """Stop the model hosts, once the worker no longer needs them."""
        for host in self.hosts:
            host.end()
        for host in self.hosts:  # one signal only: a second would cut the shutdown short
            if not host.child.wait(timeout_s):
                host.child.kill()

    def kill_hosts(self) -> None:
        """Kill the model hosts, and processes that they may have left behind."""
        for host in self.hosts:
            host.child.kill()

    def keep_alive(self) -> None:
        """Kill hanging processes, restart ended ones, and stop hosts that are not wanted."""
        self._replace_broken()
        wanted = self._serving.wanted
        for host in self.hosts:
            if host.model.name not in wanted:
                host.end()
        for host in self.hosts:
            if host.model.name in wanted:
                host.keep_alive(may_load=not self._is_moving(host, wanted))
        self.worker.keep_alive(may_start=any(host.is_ready for host in self.hosts))

    def _replace_broken(self) -> None:
        """Want other models if all wanted ones are broken and no worker has started to choose."""
        wanted = self._serving.wanted
        able = {host.model.name for host in self.hosts if not host.is_broken}
        if able and not able & wanted and self.worker.child.process is None:
            models = [model for model in self._serving.read_models() if model.name in able]
            self._serving.want(fitting(models, self._serving.room))

    def _is_moving(self, host: HostProcess, wanted: set[str]) -> bool:
        """Return whether another host is loading or ending: memory may not suffice for both."""
        return any(
            other.is_loading or (other.child.is_alive and other.model.name not in wanted)
            for other in self.hosts
            if other is not host
        )


def fitting(models: Iterable[ServedModel], room: int) -> list[str]:
    """Return the names of the first model, and of others that fit beside it, pinned ones first."""
    first, *others = models
    chosen, left = [first.name], room - first.needs
    for model in sorted(others, key=lambda model: not model.is_pinned):
        if model.needs <= left:
            chosen.append(model.name)
            left -= model.needs
    return chosen


def _part(device: Device, number: int) -> str:
    """Return the name of a host in the metrics."""
    return f"{device.slug}-host" + (f"-{number}" if number else "")


def counting(metrics: MetricFiles | None, name: str) -> dict[str, str]:
    """Return variables for a process that writes to the files of `metrics`, if there are any."""
    return metrics.environment(name) if metrics else {}
