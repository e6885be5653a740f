"""A seeded storm over a real stack, and an audit of what it left.

    make chaos SEED=1 MINUTES=20 JOBS=3000 MODELS=a,b,c

Producers submit while a driver breaks things. Exits with status 1 if a promise was broken.
"""

import argparse
import faulthandler
import random
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from redis.exceptions import RedisError

from crossmodal.errors import BrokerUnavailable
from crossmodal.processes import treat_sigterm_as_interrupt, wait_until
from producer import Client
from tests.chaos.audit import Accepted, Audit, running_jobs
from tests.chaos.callers import Callers
from tests.chaos.faults import FAULTS, Hit
from tests.chaos.leftovers import Leftovers
from tests.chaos.meddlers import Meddlers
from tests.chaos.report import report
from tests.chaos.submitters import PRODUCERS, PROMPTS, Submitters
from tests.chaos.traffic import Traffic
from tests.chaos.world import World
from tests.receiver import Receiver, listening
from tests.workers import REAL_WORKER

SETTLE_S = 300.0
SWITCH_AFTER_S = 3.0
SWITCH_EVERY_S = 4.5  # min time between a worker's switches of models, on average


@dataclass
class Storm:
    """One run: what is submitted, what was broken, and how long recovery took."""

    world: World
    seed: int
    minutes: float
    jobs: int
    poison: int
    pause_s: tuple[float, float]
    receiver: Receiver
    only: Sequence[str] = ()  # faults by name; all, if empty
    accepted: Accepted = field(default_factory=Accepted)
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.begun = time.monotonic()
        common = self.world, self.seed, self.accepted, self.over
        pause_s = self.minutes * 60 * PRODUCERS / self.jobs
        self.submitters = Submitters(*common, self.jobs, self.poison, pause_s)
        self.meddlers = Meddlers(*common)
        self.traffic = Traffic(*common)
        self.callers = Callers(*common, self.receiver)

    def rage(self) -> None:
        """Submit and break things, then repair all."""
        assert wait_until(self._knows_models, 30.0)
        self.begun = time.monotonic()
        work: list[Callable[[], None]] = [
            self.meddlers.meddle,
            self.traffic.send_bulk,
            self.traffic.send_plain,
            self.callers.call,
        ]
        threads = [threading.Thread(target=one) for one in work]
        threads += [
            threading.Thread(target=self.submitters.produce, args=(i,)) for i in range(PRODUCERS)
        ]
        for thread in threads:
            thread.start()
        try:
            threads += self._break_things()
        finally:  # or the producers of a storm that failed would keep its process alive
            self.over.set()
            self.world.keep_up()
            for thread in threads:
                thread.join()

    def _break_things(self) -> list[threading.Thread]:
        """Break things until the storm is over; return the threads that watch recovery."""
        rng, watchers = random.Random(self.seed), list[threading.Thread]()
        while time.monotonic() < self.begun + self.minutes * 60:
            watchers += self._break_something(rng)
            time.sleep(rng.uniform(*self.pause_s))
            self.world.keep_up()
        return watchers

    def _knows_models(self) -> bool:
        with Client(self.world.settings(through_proxy=False)) as client:
            return set(self.world.models) <= set(client.models(max_age_s=0))

    def settle(self) -> Audit:
        """Wait until nothing is on its way; return the audit, which names what still is."""
        self.world.keep_up()
        self.accepted.plain = set(self.traffic.plain)
        self.accepted.models |= self.traffic.plain
        self._ask_for_each()

        def is_settled() -> bool:
            return not any(self._audit().unsettled()) and not any(self.callers.unsettled())

        wait_until(is_settled, SETTLE_S, 2.0)
        return self._audit()

    def _ask_for_each(self) -> None:
        """Submit a job of each model, so that one loads it and clears its queues of garbage."""
        with Client(self.world.settings(through_proxy=False)) as client:
            for model in self.world.models:
                job = client.txt2img(PROMPTS[0], seed=1, model=model)
                self.accepted.jobs.add(job.id)
                self.accepted.models[job.id] = model

    def switches_too_often(self) -> Iterator[str]:
        """Yield if switches, of over three seconds each, took too much of the time."""
        lasted_s, count = time.monotonic() - self.begun, self.world.switches()
        if count * SWITCH_EVERY_S > lasted_s * len(self.world.workers):
            yield f"models were given up for others {count} times in {lasted_s:.0f} s"

    def _audit(self) -> Audit:
        settings = self.world.settings(through_proxy=False)
        return Audit(settings, self.accepted, self.world.models)

    def _break_something(self, rng: random.Random) -> list[threading.Thread]:
        names = list(self.only or FAULTS)
        name = rng.choices(names, [FAULTS[one].weight for one in names])[0]
        before, began_at = self._running(), time.monotonic() - self.begun
        hit = FAULTS[name].do(self.world, rng)
        if not hit.happened:
            return []
        print(f"{began_at:6.1f} s: {name}", file=sys.stderr, flush=True)
        self.accepted.counts[name] += 1
        self.accepted.cut_handovers += FAULTS[name].handovers
        return self._watchers(name, hit, before)

    def _watchers(self, name: str, hit: Hit, before: dict[str, str]) -> list[threading.Thread]:
        hit_jobs = {i for i, worker in before.items() if hit.worker in (None, worker)}
        watchers = [threading.Thread(target=self._watch, args=(name, hit_jobs))]
        if hit.worker is not None:
            struck = hit_jobs | self._running_on(hit.worker)
            self._note_struck(struck)
            if hit.doomed is not None:
                args = hit.worker, hit.doomed, struck
                watchers.append(threading.Thread(target=self._follow_doomed, args=args))
        for watcher in watchers:
            watcher.start()
        return watchers

    def _follow_doomed(self, worker: str, process: psutil.Process, struck: set[str]) -> None:
        """Note also what a worker without its supervisor starts before it ends."""

        def is_done() -> bool:
            late = self._running_on(worker) - struck
            self._note_struck(late)
            struck.update(late)
            return _has_ended(process)

        wait_until(is_done, SETTLE_S, 0.1)

    def _note_struck(self, jobs: set[str]) -> None:
        with self.accepted.lock:
            self.accepted.struck.update(jobs)

    def _running(self) -> dict[str, str]:
        """Return the running jobs, with their workers; none while Redis is away."""
        with suppress(RedisError):
            return running_jobs(self.world.settings(through_proxy=False), self.world.models)
        return {}

    def _running_on(self, worker: str) -> set[str]:
        return {i for i, name in self._running().items() if name == worker}

    def _watch(self, name: str, hit_jobs: set[str]) -> None:
        """Time the recovery: all jobs on what was hit have ended, and one submitted afterwards."""
        begun = time.monotonic()
        key = f"after {name} {self.accepted.counts[name]} {begun}"
        model = self.world.a_model(random.Random(key))
        with Client(self.world.settings()) as client:
            probe = self.submitters.insist(
                lambda: client.txt2img(PROMPTS[0], seed=1, model=model, idempotency_key=key)
            )
            if probe is None:
                return
            with self.accepted.lock:
                self.accepted.jobs.add(probe.id)
            waiting = {probe.id, *hit_jobs}

            def recovered() -> bool:
                try:
                    waiting.difference_update(
                        [i for i in waiting if client.status(i).state.is_terminal]
                    )
                except BrokerUnavailable:
                    return False
                return not waiting

            if wait_until(recovered, SETTLE_S, 0.2):
                self.recoveries[name].append(time.monotonic() - begun)


def _has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def world_of(
    lease_s: float,
    concurrency: int,
    folder: Path | None,
    program: Sequence[str] = REAL_WORKER,
    models: Sequence[str] = (),
    *,
    with_sentinel: bool = False,
) -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="storm-") as temporary:
        env = {
            "CROSSMODAL_LEASE_S": f"{lease_s:g}",
            "CROSSMODAL_INFERENCE_TIMEOUT_S": "20",
            "OMP_NUM_THREADS": "1",
            "CROSSMODAL_SWITCH_AFTER_S": f"{SWITCH_AFTER_S:g}",
            "FAKE_LOAD_S": "1",
        }
        world = World(
            folder or Path(temporary),
            concurrency,
            more_env=env,
            program=program,
            models=models,
            with_sentinel=with_sentinel,
        )
        try:
            yield world
        finally:
            world.close()


def run(storm: Storm) -> tuple[str, list[str]]:
    """Run the storm from beginning to end; return its report and its breaches."""
    storm.rage()
    audit, left = storm.settle(), Leftovers(storm.world, storm.callers)
    breaches = [*left.collected(), *audit.breaches(), *storm.switches_too_often()]
    breaches += [*storm.traffic.breaches(), *storm.callers.breaches()]
    breaches += [*left.in_redis(audit), *left.in_store(audit), *left.deaf()]
    storm.world.stop()
    breaches += left.on_machine()
    return report(storm, audit, breaches), breaches


def main() -> None:
    """Run a storm from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--jobs", type=int, default=3_000)
    parser.add_argument("--poison", type=int, default=2, help="poison jobs of each producer")
    parser.add_argument("--models", default="a,b,c", help="fake ones; none: those that ship")
    parser.add_argument("--only", default="", help="faults by name, separated by commas")
    parser.add_argument("--no-sentinel", action="store_true", help="one Redis alone")
    parser.add_argument("--folder", type=Path, help="keep logs and data here")
    args = parser.parse_args()
    treat_sigterm_as_interrupt()
    faulthandler.register(signal.SIGUSR1)  # prints the stacks of a storm that hangs
    if args.folder is not None:
        args.folder.mkdir(parents=True, exist_ok=True)
    models, only = (tuple(filter(None, names.split(","))) for names in (args.models, args.only))
    with (
        world_of(15.0, 4, args.folder, models=models, with_sentinel=not args.no_sentinel) as world,
        listening() as receiver,
    ):
        world.longest_pause_s = 30.0
        receiver.fails_every = 3
        storm = Storm(
            world, args.seed, args.minutes, args.jobs, args.poison, (4.0, 12.0), receiver, only
        )
        text, breaches = run(storm)
    print(text)
    raise SystemExit(bool(breaches))


if __name__ == "__main__":
    main()
