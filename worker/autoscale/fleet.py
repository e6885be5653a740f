"""The worker processes that a scaler has started, each a `crossmodal worker` on one device."""

import logging
import signal
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from crossmodal.kinds.task import tasks
from crossmodal.processes import Child, python_module, wait_until
from crossmodal.settings import Settings
from worker.autoscale.metrics import ENDED
from worker.devices import Device
from worker.watched import Watched

log = logging.getLogger(__name__)

MARGIN_S = 30.0  # beyond the longest attempt, for a worker to end by itself
HURRY_S = 30.0  # max time for a worker to end after a second signal
AGAIN_S = 0.5


class SlotState(StrEnum):
    """`starting` and `ready` workers are wanted; a `draining` one finishes what it runs."""

    OFF = "off"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Slot:
    """A place for one worker on one device. A worker that crashes is restarted in it."""

    def __init__(
        self, number: int, name: str, argv: Sequence[str], ready_file: Path, env: Mapping[str, str]
    ) -> None:
        self.number = number
        self.name = name
        self.argv = argv
        self._ready_file = ready_file
        self.env = env
        self.watched: Watched | None = None
        self._draining = False
        self._was_ready = False

    @property
    def state(self) -> SlotState:
        if self.watched is None:
            return SlotState.OFF
        if self._draining:
            return SlotState.DRAINING
        return SlotState.READY if self._is_ready else SlotState.STARTING

    @property
    def pid(self) -> int | None:
        """The process id of its supervisor, which is part of its Celery workers' names."""
        return None if self.watched is None else self.watched.child.pid

    def open(self) -> None:
        """Start a worker, and keep it running."""
        self.watched = Watched(Child(self.name, self.argv, self.env))
        self._draining = False
        self.watch()

    def close(self) -> None:
        """Drain the worker. Further calls do nothing."""
        if self.watched is not None and not self._draining:
            self._draining = True
            self.watched.child.send(signal.SIGTERM)
            self.watch()

    def hurry(self) -> None:
        """Stop a draining worker at once; its running jobs go back to the queue."""
        if self.watched is not None:
            self.watched.child.send(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the worker and all processes that it has started."""
        if self.watched is not None:
            self.watched.child.kill()

    def watch(self) -> None:
        """Restart a worker that has ended; free the slot of one that has drained. Call it often."""
        if self.watched is None:
            return
        has_ended = not self.watched.child.is_alive  # read once: it may end at any moment
        if has_ended:
            self._note_end(self.watched)
        if self._draining:
            if has_ended:
                self.watched = None
            return
        self.watched.keep_alive()
        if self._is_ready and not self._was_ready:
            self._was_ready = True
            took_s = time.monotonic() - self.watched.child.started_at
            log.info("%s takes jobs, %.1f s after its start", self.name, took_s)

    @property
    def _is_ready(self) -> bool:
        return self._ready_file.exists()

    def _note_end(self, watched: Watched) -> None:
        """Remove the ended worker's ready file, and count each end once."""
        self._ready_file.unlink(missing_ok=True)
        status = watched.child.returncode
        if status is None or watched.not_before:
            return
        used, self._was_ready = self._was_ready, False
        if not self._draining:
            ENDED.labels("crashed").inc()
        elif not used:  # no jobs yet, and perhaps no SIGTERM handler
            ENDED.labels("unused").inc()
            log.info("%s was stopped before it took jobs: status %s", self.name, status)
        else:
            ENDED.labels("cut_off" if status else "drained").inc()
            level, pid = logging.ERROR if status else logging.INFO, watched.child.pid
            log.log(level, "%s (pid %s) has drained: status %s", self.name, pid, status)


class Fleet:
    """All slots of a machine."""

    def __init__(
        self, settings: Settings, devices: Sequence[Device], folder: Path, options: Sequence[str]
    ) -> None:
        self.slots = []
        for number, device in enumerate(devices):
            ready_file = folder / f"{number}.ready"
            argv = python_module(
                "crossmodal.cli",
                "worker",
                "--devices",
                device.name,
                "--ready-file",
                str(ready_file),
                *options,
            )
            name = f"worker {number} ({device.name})"
            self.slots.append(Slot(number, name, argv, ready_file, _environment(settings, number)))

    def count(self, *states: SlotState) -> int:
        return sum(slot.state in states for slot in self.slots)

    @property
    def size(self) -> int:
        """The number of workers that take jobs, or soon will."""
        return self.count(SlotState.STARTING, SlotState.READY)

    def add(self, count: int) -> None:
        """Open up to `count` free slots; a draining worker keeps its own."""
        free = [slot for slot in self.slots if slot.state is SlotState.OFF]
        for slot in free[:count]:
            slot.open()

    def remove(self, count: int, busy: Mapping[int, int]) -> None:
        """Drain `count` workers: first those not ready yet, then those with the fewest jobs."""
        up = [slot for slot in self.slots if slot.state in (SlotState.STARTING, SlotState.READY)]
        up.sort(
            key=lambda slot: (
                slot.state is SlotState.READY,
                busy.get(slot.pid or 0, 0),
                -slot.number,
            )
        )
        for slot in up[:count]:
            slot.close()

    def watch(self) -> None:
        for slot in self.slots:
            slot.watch()

    def drain(self) -> None:
        for slot in self.slots:
            slot.close()

    def has_ended(self) -> bool:
        self.watch()
        return self.count(SlotState.OFF) == len(self.slots)

    def end(self) -> None:
        """Stop draining workers at once; their jobs go back to the queue."""
        wait_until(self._has_ended_told_again, HURRY_S, AGAIN_S)
        for slot in self.slots:
            slot.kill()

    def _has_ended_told_again(self) -> bool:
        # Repeated: a process that gets two equal signals at once sees only one.
        for slot in self.slots:
            slot.hurry()
        return self.has_ended()


def _environment(settings: Settings, number: int) -> dict[str, str]:
    """Return a worker's variables; it may drain for as long as its last jobs can take."""
    longest_s = max(settings.run_time_limit_of(task) for task in tasks())
    port = settings.metrics_port + 1 + number if settings.metrics_port else 0
    return {
        "CROSSMODAL_DRAIN_S": str(max(settings.drain_s, longest_s + MARGIN_S)),
        "CROSSMODAL_METRICS_PORT": str(port),
    }
