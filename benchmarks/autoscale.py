"""A burst of jobs on `crossmodal autoscale`: from no worker to four and back, no job cut off.

    python benchmarks/autoscale.py [--json] [--jobs N] [--most W]

A real Valkey, a real scaler and real workers with the shipped models, all on this machine. First
all jobs are submitted at once to an empty queue without workers. After the last worker has ended,
jobs arrive at random at two fifths of the rate that the burst reached, until a minute after the
workers have caught up. Results come from the ledger, the scaler's metrics and its log; the script
exits with status 1 if a job ran twice or a worker was cut off.
"""

import itertools
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from efficiency import PROMPTS
from harness import Report, arguments, percentile
from manual import refresh, save_picture
from prometheus_client.parser import text_string_to_metric_families
from stack import DRAIN_S, queue_server

from crossmodal.errors import BrokerUnavailable
from crossmodal.jobs.record import Job, JobState
from crossmodal.kinds.task import Task
from crossmodal.local.stack import Stack
from crossmodal.local.valkey import free_port
from crossmodal.processes import Child, wait_until
from crossmodal.settings import load_settings
from producer import Client, JobHandle

TARGET_S, COOLDOWN_S, INTERVAL_S = 5.0, 30.0, 1.0
CONCURRENCY = 4  # jobs in hand per worker: four workers share the cores
SAMPLE_S = 0.5
STEADY_PART = 0.4  # share of the rate that the burst reached
LIMIT_S = 900.0


@dataclass(frozen=True)
class Sample:
    """Counts of workers and jobs at one moment, by this machine's clock."""

    at: float
    wanted: float
    ready: float
    starting: float
    draining: float
    waiting: int
    running: int


@dataclass
class Running:
    """A running scaler, and the samples taken of it."""

    client: Client
    scaler: Child
    port: int
    log: Path
    samples: list[Sample] = field(default_factory=list)

    def metrics(self) -> dict[tuple[str, str], float]:
        """Return the scaler's metrics by name and label."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            text = str(answer.read(), "utf-8")
        samples = [s for f in text_string_to_metric_families(text) for s in f.samples]
        names = [s.name.removeprefix("crossmodal_autoscale_") for s in samples]
        labels = [next(iter(s.labels.values()), "") for s in samples]
        return dict(zip(zip(names, labels, strict=True), (s.value for s in samples), strict=True))

    def look(self) -> Sample:
        found, queue = self.metrics(), self.client.queue(Task("txt2img"))
        ready, starting, draining = (
            found.get(("workers", state), 0.0) for state in ("ready", "starting", "draining")
        )
        wanted = found.get(("wanted_workers", ""), 0.0)
        return Sample(time.time(), wanted, ready, starting, draining, queue.depth, queue.running)

    def is_empty(self) -> bool:
        last = self.samples[-1]
        return not (last.ready or last.starting or last.draining or last.waiting or last.running)


@contextmanager
def scaling(most: int) -> Iterator[Running]:
    """Run `crossmodal autoscale` on a private queue, sampled twice a second."""
    with queue_server() as (folder, _), Client(load_settings()) as client:
        port, log = free_port(), folder / "scaler.log"
        argv = [
            sys.executable,
            "-m",
            "crossmodal.cli",
            "autoscale",
            "--devices",
            "cpu",
            "--min",
            "0",
            "--max",
            str(most),
            "--target-wait",
            f"{TARGET_S:g}",
            "--cooldown",
            f"{COOLDOWN_S:g}",
            "--interval",
            f"{INTERVAL_S:g}",
            "--metrics-port",
            str(port),
            "--",
            "--queues",
            Task("txt2img"),
            "--concurrency",
            str(CONCURRENCY),
        ]
        env = {"CROSSMODAL_LOG_LEVEL": "INFO", "CROSSMODAL_LOG_FORMAT": "json"}
        with log.open("wb") as output, Stack(env, output) as stack:
            scaler = stack.start("autoscale", argv, DRAIN_S)
            running = Running(client, scaler, port, log)
            if not wait_until(lambda: _has_looked(running), 60):
                raise SystemExit(f"the scaler did not start: {log.read_text()}")
            over = threading.Event()
            sampler = threading.Thread(target=_sample, args=(running, over))
            sampler.start()
            try:
                yield running
            finally:
                over.set()
                sampler.join()


def _has_looked(running: Running) -> bool:
    try:
        running.samples.append(running.look())
    except (OSError, BrokerUnavailable):  # a failed sample must not end the sampling
        return False
    return True


def _sample(running: Running, over: threading.Event) -> None:
    while not over.wait(SAMPLE_S):
        _has_looked(running)


def burst(running: Running, count: int) -> list[JobHandle]:
    """Submit all jobs at once."""
    return [running.client.txt2img(PROMPTS[i % len(PROMPTS)], seed=i) for i in range(count)]


def steady(running: Running, per_second: float, seconds: float) -> list[JobHandle]:
    """Submit jobs at random times at a mean rate, for `seconds` after the first have run."""
    rng, seen = random.Random(7), len(running.samples)
    jobs: list[JobHandle] = []
    due = begun = time.time()
    for i in itertools.count():
        settled = settled_at(running.samples[seen:])
        if due > (settled + seconds if settled else begun + LIMIT_S):
            break
        due += rng.expovariate(per_second)
        time.sleep(max(0.0, due - time.time()))
        jobs.append(running.client.txt2img(PROMPTS[i % len(PROMPTS)], seed=i))
    return jobs


def settled_at(samples: Sequence[Sample]) -> float | None:
    """Return the first time when a worker was ready and no job waited."""
    return next((s.at for s in samples if s.ready and not s.waiting), None)


@dataclass(frozen=True)
class Phase:
    """Ended jobs, and the samples taken until the last worker had ended."""

    jobs: list[Job]
    samples: list[Sample]
    begun: float

    @property
    def waits(self) -> list[float]:
        return [_started(job) - job.created_at for job in self.jobs]

    @property
    def first_ready(self) -> float:
        """When the first worker took jobs; waits before that are its start-up."""
        return min(_started(job) for job in self.jobs)

    def rate(self, window_s: float = 5.0) -> float:
        """Return the highest rate in any window, in jobs per second."""
        ends = sorted(job.finished_at or 0.0 for job in self.jobs)
        most, first = 0, 0
        for last, end in enumerate(ends):
            while end - ends[first] > window_s:
                first += 1
            most = max(most, last - first + 1)
        return most / window_s


def run(running: Running, submit: Callable[[], list[JobHandle]]) -> Phase:
    """Submit jobs, then wait until all of them and the last worker have ended."""
    begun, seen = time.time(), len(running.samples)
    handles = submit()
    for _ in running.client.as_completed(handles, timeout_s=LIMIT_S):
        pass
    if not wait_until(running.is_empty, LIMIT_S, SAMPLE_S):
        raise SystemExit("workers are left although nothing is to do")
    jobs = [running.client.record(handle.id) for handle in handles]
    return Phase(jobs, running.samples[seen:], begun)


def _started(job: Job) -> float:
    assert job.started_at is not None
    return job.started_at


def audit(running: Running, phases: Sequence[Phase]) -> dict[str, Any]:
    """Return what `is_good` checks: attempts of jobs, and how workers ended."""
    jobs = [job for phase in phases for job in phase.jobs]
    found = running.metrics()
    ended = {how: int(n) for (name, how), n in found.items() if name == "ended_total"}
    statuses = re.findall(r"has drained: status (-?\d+)", running.log.read_text())
    return {
        "jobs": len(jobs),
        "succeeded": sum(job.state is JobState.SUCCEEDED for job in jobs),
        "most_attempts": max(job.attempt for job in jobs),
        "redelivered": running.client.queue(Task("txt2img")).redelivered,
        "workers_started": len(statuses),
        "workers_drained": ended.get("drained", 0),
        "workers_unused": ended.get("unused", 0),
        "workers_cut_off": ended.get("cut_off", 0),
        "workers_crashed": ended.get("crashed", 0),
        "exit_statuses": sorted({int(status) for status in statuses}),
    }


def is_good(found: dict[str, Any]) -> bool:
    """Whether each job succeeded in its first attempt and each worker drained."""
    return bool(
        found["succeeded"] == found["jobs"]
        and found["most_attempts"] == 1
        and found["redelivered"] == found["workers_cut_off"] == found["workers_crashed"] == 0
        and found["workers_drained"] == found["workers_started"] > 0
        and found["exit_statuses"] == [0]
    )


def summary(phase: Phase) -> dict[str, float | None]:
    """Summarize waits, rates and numbers of workers."""
    settled = settled_at(phase.samples) or phase.samples[-1].at
    later = [w for w, job in zip(phase.waits, phase.jobs, strict=True) if job.created_at >= settled]
    last_end = max(job.finished_at or 0.0 for job in phase.jobs)
    return {
        "jobs": len(phase.jobs),
        "most_workers": max(s.ready + s.starting for s in phase.samples),
        "first_job_after_s": round(phase.first_ready - phase.begun, 1),
        "rate": round(phase.rate(), 1),
        "at_best_s": round(len(phase.jobs) / phase.rate(), 1),
        "all_ended_after_s": round(last_end - phase.begun, 1),
        "none_left_after_s": round(phase.samples[-1].at - phase.begun, 1),
        "wait_p50_s": round(percentile(phase.waits, 50), 2),
        "wait_p95_s": round(percentile(phase.waits, 95), 2),
        "warm_jobs": len(later),
        "warm_wait_p95_s": round(percentile(later, 95), 2) if later else None,
    }


def plot(phases: Sequence[tuple[str, Phase]]) -> None:
    """Plot workers, jobs and waits over time, one column per phase."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(phases), 7.2), layout="constrained")
    grid = figure.subplots(3, len(phases), sharex="col", squeeze=False)
    for column, (title, phase) in enumerate(phases):
        at = [s.at - phase.begun for s in phase.samples]
        workers, jobs, waits = (grid[row][column] for row in range(3))
        ready = [s.ready for s in phase.samples]
        starting = [s.starting for s in phase.samples]
        draining = [s.draining for s in phase.samples]
        workers.stackplot(
            at,
            ready,
            starting,
            draining,
            step="post",
            labels=["ready", "starting", "draining"],
            colors=["#4c9f70", "#f2c14e", "#b0b0b0"],
        )
        workers.step(
            at, [s.wanted for s in phase.samples], where="post", color="black", label="wanted"
        )
        workers.set_title(title)
        workers.set_ylabel("workers")
        workers.yaxis.get_major_locator().set_params(integer=True)
        jobs.plot(at, [s.waiting for s in phase.samples], label="waiting")
        jobs.plot(at, [s.running for s in phase.samples], label="running")
        jobs.set_ylabel("jobs")
        jobs.set_yscale("symlog", linthresh=10)
        jobs.set_ylim(0)
        waits.plot(
            [_started(job) - phase.begun for job in phase.jobs],
            phase.waits,
            ".",
            markersize=2,
            label="a job, when it began",
        )
        waits.axhline(TARGET_S, color="black", linestyle=":", label="target wait")
        waits.set_ylabel("wait (s)")
        waits.set_xlabel("seconds")
        waits.set_ylim(0)
        for axes in (workers, jobs, waits):
            axes.legend(fontsize="small")
    save_picture("autoscale", figure)


def write_down(found: dict[str, Any], as_json: bool) -> None:
    """Save the table, and update the manual."""
    checks, phases = found["audit"], found["phases"]
    report = Report(
        "autoscale",
        "A burst on a scaler",
        ("", *phases),
        figures=found,
        notes=f"`crossmodal autoscale --max {found['most']} --target-wait {TARGET_S:g} "
        f"--cooldown {COOLDOWN_S:g} --interval {INTERVAL_S:g} -- --queues txt2img --concurrency "
        f"{CONCURRENCY}`. At best: the jobs at the rate of the five best seconds. Warm: jobs that "
        "were submitted when those which had waited for the first worker had been taken. "
        f"Of {checks['jobs']:,} jobs {checks['succeeded']:,} succeeded, in "
        f"{checks['most_attempts']} attempt each, {checks['redelivered']} were redelivered. "
        f"{checks['workers_started']} workers took jobs and drained with exit status "
        f"{', '.join(map(str, checks['exit_statuses']))}; {checks['workers_unused']} were stopped "
        f"before they took jobs, {checks['workers_cut_off']} cut off, {checks['workers_crashed']} "
        "crashed.",
    )
    words = {
        "jobs": "jobs",
        "most_workers": "most workers",
        "first_job_after_s": "first job begins (s)",
        "rate": "jobs a second",
        "at_best_s": "all jobs, at best (s)",
        "all_ended_after_s": "all jobs have ended (s)",
        "none_left_after_s": "the last worker has gone (s)",
        "wait_p50_s": "wait p50 (s)",
        "wait_p95_s": "wait p95 (s)",
        "warm_jobs": "warm jobs",
        "warm_wait_p95_s": "their wait p95 (s)",
    }
    report.rows = [(words[key], *(p[key] for p in phases.values())) for key in words]
    report.finish(as_json)
    refresh("scaling.md", "autoscale")


def main() -> None:
    """Measure, print and save the results."""
    parser = arguments(__doc__, rounds=None)
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument("--most", type=int, default=4, help="workers")
    parser.add_argument(
        "--steady", type=float, default=60.0, help="seconds of warm jobs, one by one"
    )
    args = parser.parse_args()
    with scaling(args.most) as running:
        first = run(running, lambda: burst(running, args.jobs))
        per_second = STEADY_PART * first.rate()
        second = run(running, lambda: steady(running, per_second, args.steady))
        checks = audit(running, [first, second])
    checks["scaler_status"] = running.scaler.returncode
    named = [(f"{args.jobs:,} at once", first), (f"{per_second:.0f} a second", second)]
    plot(named)
    write_down(
        {
            "most": args.most,
            "target_s": TARGET_S,
            "audit": checks,
            "phases": {name: summary(phase) for name, phase in named},
        },
        args.json,
    )
    if not (is_good(checks) and checks["scaler_status"] == 0):
        raise SystemExit(f"jobs or workers were harmed: {checks}")


if __name__ == "__main__":
    main()
