"""The likely wait of a job, on queues that are worked off by a clock of the test's own."""

import hashlib
import heapq
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from crossmodal.jobs import together
from crossmodal.jobs.connection import connect
from crossmodal.jobs.ledger import Attempt, NotStarted
from crossmodal.jobs.names import new_job_id
from crossmodal.jobs.record import QueueStatus
from crossmodal.jobs.scripts.loader import script
from crossmodal.jobs.submission import Submission
from crossmodal.kinds.task import Task
from crossmodal.settings import Settings
from tests.ledgers import Ledger
from tests.unit.test_ledger import PARAMS, result_of

TIME = "local t = redis.call('TIME')\n    clock = tonumber(t[1]) + tonumber(t[2]) / 1000000"
OURS = "clock = tonumber(redis.call('GET', prefix .. ':time'))"
MAX_BATCH = 16
FACTOR = 1.5


@dataclass
class Machine:
    """A worker that has so many jobs in hand; its device runs up to `MAX_BATCH` of them at once."""

    slots: int
    fixed_s: float
    each_s: float
    held: list[Attempt] = field(default_factory=list)
    on_device: list[Attempt] = field(default_factory=list)


class World:
    """Machines that work off one queue; time passes only from event to event."""

    def __init__(self, settings: Settings, task: Task = Task("txt2img")) -> None:
        self.task = task
        self.ledger = Ledger(settings)
        self._redis: Any = connect(settings)
        self._key = f"{settings.key_prefix}:time"
        self.now = time.time()
        self.move(self.now)
        self.waiting: list[str] = []
        self.started_at: dict[str, float] = {}
        self.machines: list[Machine] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def move(self, now: float) -> None:
        self.now = now
        self._redis.set(self._key, f"{now:.6f}")

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, len(self.started_at) + id(what), what))

    def add(self, machine: Machine) -> Machine:
        self.machines.append(machine)
        return machine

    def submit(self, count: int = 1, gap_s: float = 0.002) -> list[str]:
        """Submit jobs, one shortly after another."""
        jobs = []
        for _ in range(count):
            self.run(until=self.now + gap_s)
            job_id = new_job_id()
            self.ledger.submit(Submission(job_id, self.task, PARAMS, "print"))
            jobs.append(job_id)
            self.waiting.append(job_id)
            self._work()
        return jobs

    def run(self, until: float) -> None:
        self._work()
        while self._events and self._events[0][0] <= until:
            when, _, what = heapq.heappop(self._events)
            self.move(when)
            what()
            self._work()
        self.move(max(self.now, until))

    def estimate(self, job_id: str) -> float | None:
        return self.ledger.status(job_id).estimated_wait_s

    def _work(self) -> None:
        for machine in self.machines:
            while self.waiting and len(machine.held) + len(machine.on_device) < machine.slots:
                self._start(machine)
            if machine.held and not machine.on_device:
                self._infer(machine)

    def _start(self, machine: Machine) -> None:
        attempt = self.ledger.start(job_id := self.waiting.pop(0), "cpu@test")
        if not isinstance(attempt, NotStarted):
            self.started_at[job_id] = self.now
            machine.held.append(attempt)

    def _infer(self, machine: Machine) -> None:
        machine.on_device, machine.held = machine.held[:MAX_BATCH], machine.held[MAX_BATCH:]
        took_s = machine.fixed_s + machine.each_s * len(machine.on_device)
        self.at(self.now + took_s, lambda: self._batch_ends(machine))

    def _batch_ends(self, machine: Machine) -> None:
        """Jobs of a batch are stored, recorded and followed by others one by one."""
        batch, machine.on_device = machine.on_device, []
        for attempt in batch:
            self.ledger.succeed(attempt, result_of(attempt))
            self.move(self.now + 0.001)
            if self.waiting:
                self._start(machine)


@pytest.fixture
def world(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    def with_our_clock(name: str) -> str:
        assert TIME in script(name)
        return script(name).replace(TIME, OURS)

    def digest(name: str) -> str:
        return hashlib.sha1(with_our_clock(name).encode(), usedforsecurity=False).hexdigest()

    monkeypatch.setattr(together, "script", with_our_clock)
    monkeypatch.setattr(together, "digest", digest)
    world = World(settings)
    yield world
    world.ledger.close()
    world._redis.close()


def predictions(world: World, jobs: list[str], every_s: float) -> list[tuple[float, float]]:
    """What was predicted and what came, for jobs that wait, at moments `every_s` apart."""
    told: list[tuple[str, float, float | None]] = []
    while world.waiting:
        assert len(told) < 1_000
        for job_id in world.waiting[0::40] + world.waiting[-1:]:
            told.append((job_id, world.now, world.estimate(job_id)))
        world.run(until=world.now + every_s)
    return [(guess, world.started_at[j] - at) for j, at, guess in told if guess is not None]


def batch_s(machine: Machine) -> float:
    return machine.fixed_s + machine.each_s * min(machine.slots, MAX_BATCH)


def check(found: list[tuple[float, float]], within_s: float) -> None:
    """All within the factor, but for what a batch that just began or ends makes of the last."""
    assert len(found) > 10
    wrong = [
        (guess, real)
        for guess, real in found
        if not real / FACTOR - within_s <= guess <= real * FACTOR + within_s
    ]
    assert not wrong, wrong


def test_one_worker_with_24_jobs_in_hand_after_jobs_that_came_alone(world: World) -> None:
    machine = world.add(Machine(24, fixed_s=0.05, each_s=0.03))
    for _ in range(30):  # each alone in its batch: nothing to learn of the queue from them
        world.submit()
        world.run(until=world.now + 0.3)
    jobs = world.submit(200)
    world.run(until=world.now + batch_s(machine))
    check(predictions(world, jobs, 0.37), batch_s(machine))


@pytest.mark.parametrize("slots", [1, 8, 64])
def test_a_worker_that_has_just_started_on_an_old_queue(world: World, slots: int) -> None:
    jobs = world.submit(150)
    world.run(until=world.now + 100)
    assert world.estimate(jobs[0]) is None  # nothing is known
    machine = world.add(Machine(slots, fixed_s=0.1, each_s=0.05))
    world.run(until=world.now)
    world.run(until=world.now + 2 * batch_s(machine))
    check(predictions(world, jobs, 0.41), batch_s(machine))


def test_three_workers_of_different_speeds(world: World) -> None:
    machines = [world.add(Machine(n, 0.05, s)) for n, s in ((24, 0.03), (32, 0.01), (4, 0.2))]
    jobs = world.submit(600, gap_s=0.001)
    world.run(until=world.now + batch_s(machines[0]))
    check(predictions(world, jobs, 0.53), max(map(batch_s, machines)))


def test_a_queue_that_is_filled_as_fast_as_it_is_worked_off(world: World) -> None:
    machine = world.add(Machine(24, fixed_s=0.08, each_s=0.02))
    world.submit(100)
    world.run(until=world.now + 2 * batch_s(machine))
    found: list[tuple[str, float, float | None]] = []
    for _ in range(300):  # 40 jobs a second, which is what the machine does
        [job] = world.submit(gap_s=1 / 40)
        found.append((job, world.now, world.estimate(job)))
    world.run(until=world.now + 20)
    check([(g, world.started_at[j] - at) for j, at, g in found if g is not None], batch_s(machine))


def test_slow_jobs_one_at_a_time_and_a_second_worker_that_joins(world: World) -> None:
    world.add(Machine(1, fixed_s=30, each_s=0))
    jobs = world.submit(120)
    world.run(until=world.now + 31)
    told = [(j, world.now, world.estimate(j)) for j in (jobs[5], jobs[10])]
    world.run(until=world.now + 20 * 30)
    check([(g or 0, world.started_at[j] - at) for j, at, g in told] * 6, 30)
    world.add(Machine(1, fixed_s=30, each_s=0))
    world.run(until=world.now + 12 * 30)
    check(predictions(world, jobs, 95), 60)


def test_a_queue_that_grew_faster_since_yesterday(world: World) -> None:
    """What was learned of one machine does not count for long beside four."""
    slow = world.add(Machine(8, fixed_s=0.5, each_s=0.1))
    world.submit(200)
    world.run(until=world.now + 100)
    world.machines.remove(slow)
    machines = [world.add(Machine(8, fixed_s=0.5, each_s=0.1)) for _ in range(4)]
    jobs = world.submit(400)
    world.run(until=world.now + 3 * batch_s(machines[0]))
    check(predictions(world, jobs, 1.3), batch_s(slow))


def test_a_queue_from_which_nobody_takes_promises_nothing() -> None:
    known = {"queue": "txt2img", "depth": 3, "mean_run_s": 1.0, "mean_gap_s": 0.5, "finished": {}}
    assert QueueStatus(running=0, oldest_wait_s=60, **known).wait_s(1) is None  # type: ignore[arg-type]
    assert QueueStatus(running=0, oldest_wait_s=1, **known).wait_s(1) == 1  # type: ignore[arg-type]
    assert QueueStatus(running=2, oldest_wait_s=60, **known).wait_s(1) == 1  # type: ignore[arg-type]
