"""Polls the queues every few seconds, and starts and drains workers accordingly."""

import fcntl
import logging
import os
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import IO

from crossmodal.errors import BrokerUnavailable, InvalidSetting, described
from crossmodal.processes import on_end, wait_until
from crossmodal.settings import Settings
from worker.autoscale.demand import Demand
from worker.autoscale.fleet import Fleet, SlotState
from worker.autoscale.metrics import NEEDED, WANTED, WORKERS
from worker.autoscale.policy import Decision, Look, Policy, decide, within
from worker.supervisor import check_own

log = logging.getLogger(__name__)

POLL_S = 0.2
FOLDER = "autoscale"  # in CROSSMODAL_RUN_DIR


class Scaler:
    """A scaler, which runs as many workers as the queues need until a signal stops it.

    The first SIGTERM or SIGINT drains all workers. A second one, or the end of `drain_s`, stops
    them at once: running jobs go back to the queue.
    """

    def __init__(
        self, settings: Settings, policy: Policy, demand: Demand, fleet: Fleet, interval_s: float
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._demand = demand
        self._fleet = fleet
        self._interval_s = interval_s
        self._looks: list[Look] = []
        self._said: tuple[int, int] | None = None
        self._is_blind = False
        self._signals = 0
        self._due = time.monotonic()

    def run(self) -> int:
        """Block until stopped; return exit status 0 if all workers finished their jobs, else 1."""
        on_end(self._on_signal)
        try:
            while self._signals == 0:
                self.turn()
                time.sleep(POLL_S)
        finally:
            drained = self._drain()
        return 0 if drained else 1

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1

    def turn(self) -> None:
        """Decide if it is time, and keep the chosen workers running."""
        try:
            if time.monotonic() >= self._due:
                self._due = time.monotonic() + self._interval_s
                self.step()
            self._fleet.watch()
            self._show()
        except Exception:  # the end of this loop would drain all workers
            log.exception("internal error; trying again in a moment")

    def step(self) -> None:
        """Poll once and decide. While Redis is unavailable, change nothing."""
        try:
            self._looks = within([*self._looks, self._demand.look()], self._policy.cooldown_s)
            decision = decide(self._policy, self._looks, self._fleet.size)
            self._say(decision)
            self._apply(decision.wanted)
        except BrokerUnavailable as e:
            if not self._is_blind:
                log.warning("keeping %d workers as they are: %s", self._fleet.size, e)
            self._is_blind = True
            return
        if self._is_blind:
            log.info("Redis answers again")
            self._is_blind = False

    def _apply(self, wanted: int) -> None:
        surplus = self._fleet.size - wanted
        if surplus < 0:
            self._fleet.add(-surplus)
        elif surplus > 0:
            busy = self._demand.busy() if wanted else Counter[int]()
            self._fleet.remove(surplus, busy)

    def _say(self, decision: Decision) -> None:
        WANTED.set(decision.wanted)
        NEEDED.set(decision.need)
        now = (decision.wanted, self._fleet.size)
        if now != self._said and decision.wanted != self._fleet.size:
            log.info("%s; %s", describe(decision, self._fleet.size), queues_of(self._looks[-1]))
        self._said = now

    def _show(self) -> None:
        for state in (SlotState.STARTING, SlotState.READY, SlotState.DRAINING):
            WORKERS.labels(state.value).set(self._fleet.count(state))

    def _drain(self) -> bool:
        """Drain all workers; return whether each finished its jobs in time."""
        log.info("draining %d workers, for up to %g s", self._fleet.size, self._settings.drain_s)
        self._fleet.drain()
        wait_until(
            lambda: self._fleet.has_ended() or self._signals > 1, self._settings.drain_s, POLL_S
        )
        if self._fleet.has_ended():
            return True
        log.warning("stopping now; running jobs go back to the queue")
        self._fleet.end()
        return False


def describe(decision: Decision, size: int) -> str:
    """Return a decision in words."""
    return (
        f"{decision.wanted} workers wanted, {size} running: {decision.need:.2f} for waiting and "
        f"running jobs, {decision.arrivals:.2f} for new jobs, a recent max of {decision.recent}"
    )


def queues_of(look: Look) -> str:
    """Return the load of the queues that have jobs, in words."""
    return (
        ", ".join(
            f"{load.queue} {load.waiting} waiting {load.running} running "
            + ("unmeasured" if load.run_s is None else f"{load.run_s:.3f} s each")
            for load in look.loads
            if load.jobs
        )
        or "all queues are empty"
    )


def claim(run_dir: Path) -> tuple[Path, IO[str]]:
    """Return the folder of this machine's scaler, and its lock, which must stay open.

    Raises `InvalidSetting` if another scaler holds it: two would compete for the same devices.
    """
    folder = run_dir / FOLDER
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_own(folder, run_dir, run_dir.parent)
        file = (folder / "scaler.lock").open("a+")
    except OSError as e:
        raise InvalidSetting(f"CROSSMODAL_RUN_DIR={run_dir} cannot be used: {described(e)}") from e
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        file.seek(0)
        with file:
            other = file.read().strip()
        raise InvalidSetting(
            f"another scaler (pid {other}) runs with CROSSMODAL_RUN_DIR={run_dir}: stop it, or "
            "give this one a folder and devices of its own"
        ) from e
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return folder, file
