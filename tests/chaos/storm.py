"""A seeded storm over a real stack, and an audit of what it left.

    make chaos SEED=1 MINUTES=20 JOBS=3000 MODELS=a,b,c

Producers submit while a driver breaks things. Exits with status 1 if a promise was broken.
"""

import argparse
import io
import os
import random
import statistics
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from PIL import Image, ImageDraw
from redis.exceptions import RedisError

from crossmodal.errors import BrokerUnavailable, CrossmodalError, StorageUnavailable
from crossmodal.jobs.connection import connect
from crossmodal.jobs.message import message_of
from crossmodal.jobs.params import parse_params
from crossmodal.jobs.record import JobState
from crossmodal.kinds.queue import Queue
from crossmodal.processes import wait_until
from producer import Client, JobHandle
from tests.chaos.audit import Accepted, Audit, queues_of, running_jobs
from tests.chaos.faults import CUT_HANDOVERS, FAULTS
from tests.chaos.traffic import Traffic
from tests.chaos.world import World
from tests.ledgers import Ledger
from tests.receiver import Receiver, listening
from tests.workers import REAL_WORKER

PRODUCERS = 3
SETTLE_S = 300.0
MOST_S = 30.0  # a submit: an upload within 15 s, two calls to Redis within 5 s each
SWITCH_AFTER_S = 3.0
SWITCH_EVERY_S = 4.5  # a worker switches models not more often than this, by and large
PROMPTS = [f"a {size} {color} circle on a white background" for size in ("small", "large")
           for color in ("red", "green", "blue")]  # fmt: skip
RETRYABLE = (BrokerUnavailable, StorageUnavailable)


@dataclass
class Storm:
    """One run: what is being submitted, what has been broken, and how long recovery took."""

    world: World
    seed: int
    minutes: float
    jobs: int
    poison: int
    pause_s: tuple[float, float]
    receiver: Receiver
    accepted: Accepted = field(default_factory=Accepted)
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    counts: Counter[str] = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.begun = time.monotonic()
        self.traffic = Traffic(self.world, self.seed, self.receiver, self.over)

    def rage(self) -> None:
        """Submit and break, then mend all, and wait until everything has settled."""
        assert wait_until(self._knows_models, 30.0)
        begun = self.begun = time.monotonic()
        threads = [
            threading.Thread(target=self._produce, args=(i,), name=f"producer-{i}")
            for i in range(PRODUCERS)
        ]
        threads.append(threading.Thread(target=self._meddle, name="meddler"))
        threads.append(threading.Thread(target=self.traffic.send_bulk, name="bulk"))
        threads.append(threading.Thread(target=self.traffic.call_gateway, name="http"))
        threads.append(threading.Thread(target=self.traffic.send_plain, name="plain"))
        for thread in threads:
            thread.start()
        watchers: list[threading.Thread] = []
        try:
            rng = random.Random(self.seed)
            while time.monotonic() < begun + self.minutes * 60:
                watchers += self._break_something(rng)
                time.sleep(rng.uniform(*self.pause_s))
                self.world.keep_up()
        finally:  # or the producers of a storm that failed would keep its process alive
            self.over.set()
            self.world.keep_up()
            for thread in threads + watchers:
                thread.join()

    def _knows_models(self) -> bool:
        with Client(self.world.settings(through_proxy=False)) as client:
            return set(self.world.models) <= set(client.models(max_age_s=0))

    def settle(self) -> Audit:
        """Wait until nothing is on its way any more; the audit says what still is."""
        self.world.keep_up()
        self.accepted.plain = set(self.traffic.plain)
        self.accepted.models |= self.traffic.plain
        self._ask_for_each()

        def is_settled() -> bool:
            return not any(self._audit().unsettled()) and not any(self.traffic.unsettled())

        wait_until(is_settled, SETTLE_S, 2.0)
        return self._audit()

    def _ask_for_each(self) -> None:
        """A job of each model: without one, nobody loads it to take garbage from its queues."""
        with Client(self.world.settings(through_proxy=False)) as client:
            for model in self.world.models:
                job = client.txt2img(PROMPTS[0], seed=1, model=model)
                self.accepted.jobs.add(job.id)
                self.accepted.models[job.id] = model

    def switches_too_often(self) -> Iterator[str]:
        """Each takes three seconds and more: most of the time is for jobs."""
        lasted_s, count = time.monotonic() - self.begun, self.world.switches()
        if count * SWITCH_EVERY_S > lasted_s * len(self.world.workers):
            yield f"models were given up for others {count} times in {lasted_s:.0f} s"

    def _audit(self) -> Audit:
        settings = self.world.settings(through_proxy=False)
        return Audit(settings, self.accepted, self.world.models)

    # -- producers ------------------------------------------------------------------------

    def _produce(self, number: int) -> None:
        rng = random.Random(f"{self.seed}/{number}")
        pause_s = self.minutes * 60 * PRODUCERS / self.jobs
        mine = self.jobs // PRODUCERS
        with Client(self.world.settings()) as client:
            for i in range(mine):
                if self.over.is_set():
                    return
                poison = i * self.poison % mine < self.poison  # spread evenly
                self._submit_one(client, rng, f"{number}/{i}", poison=poison)
                self.over.wait(rng.uniform(0, 2 * pause_s))

    def _submit_one(self, client: Client, rng: random.Random, key: str, *, poison: bool) -> None:
        """Submit until it is accepted; the key makes one job of all tries."""
        prompt = rng.choice(PROMPTS) + (" poison" if poison else "")
        seed, count, caption = rng.randrange(50), rng.choice([1, 1, 1, 4]), rng.random() < 0.3
        model = self.traffic.a_model(rng)

        def submit() -> JobHandle:
            if caption and not poison:
                return client.img2txt(picture(seed), model=model, idempotency_key=key)
            return client.txt2img(prompt, seed=seed, count=count, model=model, idempotency_key=key)

        job = self._insist(submit)
        if job is None:
            return
        with self.lock:
            self.accepted.jobs.add(job.id)
            self.accepted.models[job.id] = model
            if poison:
                self.accepted.poison.add(job.id)
        if rng.random() < 0.05:
            again = self._insist(submit)
            self.counts["submitted again by key"] += 1
            self.accepted.wrong_ids += again is not None and again.id != job.id

    def _insist(self, submit: Callable[[], JobHandle]) -> JobHandle | None:
        while not self.over.is_set():
            begun = time.monotonic()
            try:
                return submit()
            except RETRYABLE as e:
                self.counts[f"refused: {e.code}"] += 1
                late = time.monotonic() - begun > MOST_S
                self.accepted.late_refusals += late
                self.over.wait(0.5)
            except CrossmodalError as e:
                self.accepted.refusals.append(f"{e.code}: {e}")
                return None
        return None

    # -- those who cancel, repeat messages and send garbage ---------------------------------

    def _meddle(self) -> None:
        rng = random.Random(f"{self.seed}/meddler")
        settings = self.world.settings()
        ledger, redis = Ledger(settings), connect(settings, decode=False)
        deeds = [self._cancel, self._cancel, self._repeat, self._litter]
        while not self.over.wait(rng.uniform(0.5, 3)):
            try:
                rng.choice(deeds)(ledger, redis, rng)
            except (CrossmodalError, RedisError):
                self.counts["meddling refused"] += 1

    def _a_job(self, rng: random.Random, recent: int) -> str | None:
        with self.lock:
            known = sorted(self.accepted.jobs)[-recent:]  # ids sort by their time
        return rng.choice(known) if known else None

    def _cancel(self, ledger: Ledger, redis: Any, rng: random.Random) -> None:
        job_id = self._a_job(rng, recent=5)
        if job_id is not None and ledger.cancel(job_id) is JobState.CANCELED:
            self.accepted.canceled.add(job_id)
            self.counts["canceled"] += 1

    def _repeat(self, ledger: Ledger, redis: Any, rng: random.Random) -> None:
        job_id = self._a_job(rng, recent=200)
        if job_id is None:
            return
        job = ledger.get(job_id)
        model = Queue.parse(job.queue).model
        message = message_of(job.id, parse_params(job.task, job.params), model)
        redis.lpush(job.queue, message, message)
        self.counts["messages repeated"] += 2

    def _litter(self, ledger: Ledger, redis: Any, rng: random.Random) -> None:
        redis.lpush(
            rng.choice(queues_of(self.world.models[1:])), rng.randbytes(rng.randrange(1, 2_000))
        )
        self.accepted.garbage += 1

    # -- faults -----------------------------------------------------------------------------

    def _break_something(self, rng: random.Random) -> list[threading.Thread]:
        weights = [weight for _, weight in FAULTS.values()]
        name = rng.choices(list(FAULTS), weights)[0]
        before = self._running()
        hit = FAULTS[name][0](self.world, rng)
        if not hit.happened:
            return []
        self.counts[name] += 1
        self.accepted.cut_handovers += name in CUT_HANDOVERS
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
        """Note also what a worker without its supervisor starts before it is ended."""

        def is_done() -> bool:
            late = self._running_on(worker) - struck
            self._note_struck(late)
            struck.update(late)
            return _has_ended(process)

        wait_until(is_done, SETTLE_S, 0.1)

    def _note_struck(self, jobs: set[str]) -> None:
        with self.lock:
            self.accepted.struck.update(jobs)

    def _running(self) -> dict[str, str]:
        """Jobs that run, with their workers; none while Redis is away."""
        with suppress(RedisError):
            return running_jobs(self.world.settings(through_proxy=False), self.world.models)
        return {}

    def _running_on(self, worker: str) -> set[str]:
        return {i for i, name in self._running().items() if name == worker}

    def _watch(self, name: str, hit_jobs: set[str]) -> None:
        """Recovered: all that ran on what was hit has ended, and so has a job submitted after."""
        begun = time.monotonic()
        with Client(self.world.settings(through_proxy=False)) as client:
            key = f"after {name} {self.counts[name]} {begun}"
            model = self.traffic.a_model(random.Random(key))
            probe = self._insist(
                lambda: client.txt2img(PROMPTS[0], seed=1, model=model, idempotency_key=key)
            )
            if probe is None:
                return
            with self.lock:
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


def picture(number: int) -> bytes:
    """A picture to caption: a circle on white, as PNG."""
    image = Image.new("RGB", (128, 128), "white")
    color = ("red", "green", "blue")[number % 3]
    ImageDraw.Draw(image).ellipse((20, 20, 60 + number, 60 + number), fill=color)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def report(storm: Storm, audit: Audit, breaches: list[str]) -> str:
    """The table of what happened."""
    lines = [
        f"seed {storm.seed}, {storm.minutes:g} minutes, {os.cpu_count()} cores",
        "",
        "| fault | times | recovery, median (s) | max (s) |",
        "|---|--:|--:|--:|",
    ]
    for name in FAULTS:
        took = storm.recoveries[name]
        shown = f"{statistics.median(took):.1f} | {max(took):.1f}" if took else "- | -"
        lines.append(f"| {name} | {storm.counts[name]} | {shown} |")
    attempts = Counter(job.attempt for job in audit.records.values())
    poison = len(storm.accepted.poison)
    traffic = storm.traffic
    others = {k: v for k, v in (storm.counts + traffic.counts).items() if k not in FAULTS and v}
    lines += [
        "",
        f"jobs accepted: {len(storm.accepted.jobs)}, {poison} of them poison",
        f"states: {', '.join(f'{n} {state}' for state, n in sorted(audit.states.items()))}",
        f"attempts: {', '.join(f'{n} × {a}' for a, n in sorted(attempts.items()))}",
        f"besides: {', '.join(f'{n} {what}' for what, n in sorted(others.items()))}",
        f"killed in every attempt, and so failed: {len(audit.struck_down)}",
        f"bulk: {len(traffic.bulk)} batches; over HTTP: {len(traffic.jobs)} jobs, "
        f"{len(traffic.batches)} batches; webhooks: {len(traffic.receiver.told)} posts",
        f"plain messages: {len(storm.accepted.plain)}, lost: {len(audit.lost_plain)}",
        f"models loaded: {storm.world.loads()} times, "
        f"given up for others: {storm.world.switches()} times",
        f"garbage: {storm.accepted.garbage} sent, {audit.set_aside} set aside",
        f"breaches: {len(breaches)}",
        *breaches[:50],
    ]
    return "\n".join(lines)


@contextmanager
def world_of(
    lease_s: float, concurrency: int, folder: Path | None, program: Sequence[str] = REAL_WORKER,
    models: Sequence[str] = (),
) -> Iterator[World]:  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="storm-") as temporary:
        env = {
            "CROSSMODAL_LEASE_S": f"{lease_s:g}",
            "CROSSMODAL_INFERENCE_TIMEOUT_S": "20",
            "OMP_NUM_THREADS": "1",
            "CROSSMODAL_SWITCH_AFTER_S": f"{SWITCH_AFTER_S:g}",
            "FAKE_LOAD_S": "1",
        }
        world = World(
            folder or Path(temporary), concurrency, more_env=env, program=program, models=models
        )
        try:
            yield world
        finally:
            world.close()


def run(storm: Storm) -> tuple[str, list[str]]:
    """The storm from beginning to end: its report, and its breaches."""
    storm.rage()
    audit = storm.settle()
    breaches = [*audit.breaches(), *storm.switches_too_often()]
    breaches += [*storm.traffic.unsettled(), *storm.traffic.breaches()]
    storm.world.stop()
    wait_until(lambda: not storm.world.survivors(), 30)
    breaches += [f"orphan: {p.pid} {p.cmdline()}" for p in storm.world.survivors()]
    return report(storm, audit, breaches), breaches


def main() -> None:
    """Run a storm from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--jobs", type=int, default=3_000)
    parser.add_argument("--poison", type=int, default=2, help="poison jobs of each producer")
    parser.add_argument("--models", default="a,b,c", help="fake ones; none: those that ship")
    parser.add_argument("--folder", type=Path, help="keep logs and data here")
    args = parser.parse_args()
    if args.folder is not None:
        args.folder.mkdir(parents=True, exist_ok=True)
    models = tuple(filter(None, args.models.split(",")))
    with world_of(15.0, 4, args.folder, models=models) as world, listening() as receiver:
        world.longest_pause_s = 30.0
        receiver.fails_every = 3
        storm = Storm(world, args.seed, args.minutes, args.jobs, args.poison, (4.0, 12.0), receiver)
        text, breaches = run(storm)
    print(text)
    raise SystemExit(bool(breaches))


if __name__ == "__main__":
    main()
