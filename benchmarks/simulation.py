"""A flow simulation of a fleet: arrivals, a queue, devices that start and stop, waits.

The scaler is the real policy of `crossmodal autoscale`. Devices, networks and the limits of
servers are assumptions; the costs of a job are given.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossmodal.kinds.task import Task
from worker.autoscale.policy import Load, Look, Policy, decide

STEP_S, INTERVAL_S, COOLDOWN_S = 0.5, 15.0, 300.0
START_S = 60.0  # start-up of a worker on a GPU machine
TARGET_S = 30.0
LOAD = 0.5  # mean load of the fleet
MESSAGE = 64  # items of a bulk message
EWMA = 0.2  # weight of the newest run time, as in the ledger's mean
PERIOD_S = 600.0  # period of the bursts
SECONDS = 3_600.0


@dataclass(frozen=True)
class Limits:
    """The assumed limits of each part."""

    redis_cpu: float = 0.8  # share of the core that runs its commands
    connections: int = 10_000  # Redis's own default of maxclients
    network: float = 10e9 / 8  # bytes per second of Redis's machine
    puts: float = 3_500.0  # per second: S3's limit for one prefix
    memory: float = 64e9  # bytes of Redis
    celery_cpu: float = 0.8  # share of the core of a device's Celery worker
    gateway_cpu: float = 0.7  # share of a gateway's core


LIMITS = Limits()


@dataclass(frozen=True)
class Fleet:
    """Devices of one type, with `slots` requests in hand, `batch` of them done every `batch_s`."""

    name: str
    batch: int
    batch_s: float
    slots: int
    task: Task

    @property
    def rate(self) -> float:
        """Requests per second of one device."""
        return self.batch / self.batch_s


FLEETS = (
    Fleet("diffusion, interactive", 4, 2.0, 32, Task("txt2img")),
    Fleet("small model, interactive", 32, 0.064, 32, Task("txt2img")),
    Fleet("small model, bulk", 32, 0.064, 8 * MESSAGE, Task("txt2img.bulk")),
)


@dataclass(frozen=True)
class Costs:
    """The costs of one request (an item, in bulk), and of an idle worker."""

    redis_cpu_s: float
    redis_bytes: float
    redis_memory: float
    puts: float
    celery_cpu_s: float
    idle_redis_cpu: float
    idle_bytes: float
    connections: float
    gateway_cpu_s: float


def costs_of(measured: Mapping[str, Any], fleet: Fleet) -> Costs:
    """Return the figures of `job_costs` for one device of this fleet."""
    job = measured["jobs"][fleet.task]
    # A bulk message's cost was measured per item, at the message size of that run.
    scale = job["items_a_message"] / MESSAGE if fleet.task.is_bulk else 1.0
    idle = measured["idle"]
    return Costs(
        job["redis_cpu_s"] * scale,
        job["redis_bytes"] * scale,
        job["redis_memory"] * scale,
        job["store_put"],
        job["celery_cpu_s"] * scale,
        idle["redis_cpu_s"],
        idle["redis_bytes"],
        measured["connections"],
        measured["gateway_cpu_s"] / (MESSAGE if fleet.task.is_bulk else 1),
    )


Rates = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def poisson(at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a constant mean rate."""
    return np.ones_like(at)


def bursts(at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a rate that is 2.5 times as high for two of every ten minutes."""
    return np.where(at % PERIOD_S < 120, 2.5 / 1.3, 1 / 1.3)


def days(at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a daily cycle in three hours: at night a tenth of the rate at noon."""
    return 1 - 0.82 * np.cos(2 * np.pi * at / 10_800)


PATTERNS: dict[str, tuple[Rates, float]] = {
    "steady": (poisson, SECONDS),
    "bursts": (bursts, SECONDS),
    "days": (days, 3 * SECONDS),
}


@dataclass(frozen=True)
class Outcome:
    """The result of a simulated run; wait percentiles are over jobs."""

    at: NDArray[np.float64]
    ready: NDArray[np.float64]
    waiting: NDArray[np.float64]
    rate: NDArray[np.float64]
    p50_s: float
    p95_s: float
    devices: float
    """The mean number of devices that were on."""


class Scaled:
    """The real command's scaler on simulated devices, which take `START_S` to start."""

    def __init__(self, fleet: Fleet, most: int) -> None:
        self._fleet = fleet
        self._policy = Policy(1, most, COOLDOWN_S, most)
        self._looks: list[Look] = []
        self._starts: list[tuple[float, int]] = []  # (time, devices to add)
        self.ready = 1
        self._run_s = fleet.batch_s
        self._submitted = 0.0

    def step(self, at: float, arrived: float, waiting: float, served: float) -> None:
        """Advance the clock one step; decide once per interval."""
        self._submitted += arrived
        full = waiting > 0
        run_s = self._fleet.slots / self._fleet.rate if full else self._fleet.batch_s
        self._run_s += EWMA * (run_s - self._run_s)
        self.ready += sum(count for due, count in self._starts if due <= at)
        self._starts = [(due, count) for due, count in self._starts if due > at]
        if at % INTERVAL_S < STEP_S:
            self._decide(at, waiting, served)

    def _decide(self, at: float, waiting: float, served: float) -> None:
        running = min(self.ready * self._fleet.slots, served / STEP_S * self._run_s)
        load = Load(
            "q",
            round(waiting),
            round(running),
            self._run_s,
            self._fleet.slots,
            TARGET_S,
            round(self._submitted),
        )
        self._looks.append(Look(at, (load,)))
        self._looks = [look for look in self._looks if look.at > at - COOLDOWN_S]
        size = self.ready + sum(count for _, count in self._starts)
        wanted = decide(self._policy, self._looks, size).wanted
        if wanted > size:
            self._starts.append((at + START_S, wanted - size))
        elif wanted < size:
            self._let_go(size - wanted)

    def _let_go(self, surplus: int) -> None:
        """Remove starting devices first, the newest of them before the others."""
        while surplus and self._starts:
            due, count = self._starts.pop()
            gone = min(count, surplus)
            surplus -= gone
            if count > gone:
                self._starts.append((due, count - gone))
        self.ready -= surplus


def simulate(fleet: Fleet, most: int, costs: Costs, pattern: str) -> Outcome:
    """Simulate jobs through a queue, in half-second steps with random arrivals."""
    shape, seconds = PATTERNS[pattern]
    at = np.arange(0, seconds, STEP_S)
    mean = LOAD * most * fleet.rate * STEP_S
    arrivals = np.random.default_rng(7).poisson(mean * shape(at)).astype(np.float64)
    scaler, waiting = Scaled(fleet, most), 0.0
    ready, queue, served = (np.zeros_like(at) for _ in range(3))
    for i, now in enumerate(at):
        able = min(scaler.ready * device_rate(fleet, costs), shared_rate(costs, scaler.ready))
        done = min(waiting + arrivals[i], able * STEP_S)
        waiting += arrivals[i] - done
        ready[i], queue[i], served[i] = scaler.ready, waiting, done
        scaler.step(float(now), arrivals[i], waiting, done)
    p50, p95 = waits(at, arrivals, served)
    return Outcome(at, ready, queue, served / STEP_S, p50, p95, float(ready.mean()))


def device_rate(fleet: Fleet, costs: Costs) -> float:
    """Return jobs per second of a device and its Celery worker, whose main process has one core."""
    return min(fleet.rate, 1 / costs.celery_cpu_s)


def shared_rate(costs: Costs, devices: int) -> float:
    """Return jobs per second that Redis, with idle workers, and the object store can carry."""
    redis = max(0.0, 1 - devices * costs.idle_redis_cpu) / costs.redis_cpu_s
    return min(redis, LIMITS.puts / costs.puts)


def waits(at: NDArray[np.float64], came: NDArray[np.float64], went: NDArray[np.float64]) -> Any:
    """Return the median and the 95th percentile of waits, first come, first served.

    Job n arrived when the sum of arrivals passed n, and started when the sum of starts did; jobs
    still waiting at the end count as started then.
    """
    jobs = np.linspace(0, came.sum(), 20_000, endpoint=False)
    begun = np.interp(jobs, np.cumsum(went), at, right=at[-1])
    found = begun - np.interp(jobs, np.cumsum(came), at)
    return tuple(float(np.percentile(np.maximum(found, 0), p)) for p in (50, 95))
