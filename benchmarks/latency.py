"""A job's latency beyond its inference: idle, under load, and beside bulk jobs.

    python benchmarks/latency.py [--json] [--seconds S]

Jobs arrive at random times (a Poisson process), whether earlier ones have ended or not. A job's
latency is from before its submit to its success in the ledger; the bare inference time, of one
request at a time in this process, is subtracted.
"""

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from efficiency import PROMPTS, requests
from harness import Report, device_arguments, median, percentile, save_plot
from stack import Running, real_stack

from crossmodal.jobs.names import new_job_id
from crossmodal.kinds.task import Task
from producer import JobHandle
from worker.host.pipeline import HostRequest, ModelPipeline

Submit = Callable[[int], JobHandle]
PERCENTS = (50, 95, 99)
WARM, IDLE_JOBS, BURST = 20, 200, 256
BULK_ITEMS = 100_000


def bare_s(pipeline: ModelPipeline, work: list[HostRequest]) -> float:
    """Return the pipeline's median time for one request, in seconds."""
    took = []
    for request in work[:60]:
        begun = time.perf_counter()
        pipeline.run([request])
        took.append(time.perf_counter() - begun)
    return median(took)


def one_by_one(running: Running, submit: Submit, count: int) -> list[float]:
    """Return latencies of jobs that each find the system idle."""
    return [_timed(running, submit, i) for i in range(count)]


def _timed(running: Running, submit: Submit, i: int) -> float:
    begun = time.time()
    job = submit(i)
    job.wait(60)
    return _ended(running, job) - begun


def _ended(running: Running, job: JobHandle) -> float:
    record = running.client.record(job.id)
    assert record.result is not None and record.finished_at is not None  # noqa: PT018
    return record.finished_at  # by Redis's clock, here the same machine's


def capacity(running: Running, submit: Submit) -> float:
    """Return jobs per second while more wait than can run."""
    begun = time.perf_counter()
    for _ in running.client.as_completed([submit(i) for i in range(BURST)]):
        pass
    return BURST / (time.perf_counter() - begun)


def open_loop(running: Running, submit: Submit, per_second: float, seconds: float) -> list[float]:
    """Return latencies of jobs that arrive at random, `per_second` on average."""
    rng = random.Random(7)
    jobs: list[tuple[float, JobHandle]] = []
    due = begun = time.time()
    for i in itertools.count():
        due += rng.expovariate(per_second)
        if due > begun + seconds:
            break
        time.sleep(max(0.0, due - time.time()))
        jobs.append((due, submit(i)))  # timed from when it was due: a late submit counts
    for _ in running.client.as_completed([job for _, job in jobs]):
        pass
    return [_ended(running, job) - due for due, job in jobs]


@contextmanager
def bulk_load(running: Running) -> Iterator[None]:
    """Run a batch of 100,000 prompts until the block ends."""
    batch_id, prompts = new_job_id(), (PROMPTS[i % len(PROMPTS)] for i in range(BULK_ITEMS))
    results = running.client.map_txt2img(prompts, batch_id=batch_id)
    next(results)
    over = threading.Event()

    def follow() -> None:
        for _ in results:
            if over.is_set():
                return

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        yield
    finally:
        over.set()
        follower.join()
        running.client.cancel_batch(batch_id)


def summary(latencies: list[float], bare: float) -> dict[str, float]:
    """Return percentiles of the added latency, and the whole latency's p95, in ms."""
    added = {f"p{p}": round((percentile(latencies, p) - bare) * 1e3, 2) for p in PERCENTS}
    return added | {"p95_whole": round(percentile(latencies, 95) * 1e3, 2), "jobs": len(latencies)}


def measure(running: Running, seconds: float, device: str) -> dict[str, dict[str, Any]]:
    """Measure all loads for both kinds."""
    pipelines, work, files = requests(running.settings, device)
    client = running.client
    submits: dict[str, Submit] = {
        Task("txt2img"): lambda i: client.txt2img(PROMPTS[i % len(PROMPTS)], seed=i),
        Task("img2txt"): lambda i: client.img2txt(files[i % len(files)]),
    }
    found: dict[str, dict[str, Any]] = {}
    for task, submit in submits.items():
        one_by_one(running, submit, WARM)
        bare = bare_s(pipelines[task], work[task])
        idle = one_by_one(running, submit, IDLE_JOBS)
        most = capacity(running, submit)
        loads = {
            "idle": idle,
            "50 %": open_loop(running, submit, most * 0.5, seconds),
            "90 %": open_loop(running, submit, most * 0.9, seconds),
        }
        with bulk_load(running):
            loads["idle beside bulk"] = one_by_one(running, submit, IDLE_JOBS // 2)
        found[task] = {"bare_ms": round(bare * 1e3, 2), "capacity": round(most, 1)}
        found[task] |= {load: summary(latencies, bare) for load, latencies in loads.items()}
        beside, alone = found[task]["idle beside bulk"], found[task]["idle"]
        found[task]["bulk_over_idle_p95"] = round(beside["p95_whole"] / alone["p95_whole"], 2)
    return found


def plot(found: dict[str, dict[str, Any]], loads: list[str], prefix: str) -> None:
    """Plot percentiles of the added latency, one line per load."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2))
    for axes, (task, figures) in zip(figure.subplots(1, len(found)), found.items(), strict=True):
        for load in loads:
            axes.plot(
                [f"p{p}" for p in PERCENTS],
                [figures[load][f"p{p}"] for p in PERCENTS],
                marker="o",
                label=load,
            )
        axes.set_title(task)
        axes.set_yscale("log")
        axes.set_ylabel("added (ms)")
    figure.legend(loads, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=len(loads))
    save_plot(prefix + "latency", figure)


def main() -> None:
    """Measure, print and save the results."""
    parser = device_arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each load")
    args = parser.parse_args()
    with real_stack(args.device) as running:
        found = measure(running, args.seconds, args.device)
    loads = ["idle", "50 %", "90 %", "idle beside bulk"]
    report = Report(
        args.prefix + "latency",
        "Latency that is added to the inference",
        ("task", "load", *(f"p{p} (ms)" for p in PERCENTS), "whole p95 (ms)", "jobs"),
        figures=found,
        notes="Bare inference: "
        + ", ".join(f"{task} {f['bare_ms']} ms" for task, f in found.items())
        + ". 50 % and 90 % are of what the system can do ("
        + ", ".join(f"{task} {f['capacity']} a second" for task, f in found.items())
        + "). Beside bulk: a batch of 100,000 prompts is being drawn.",
    )
    for task, figures in found.items():
        for load in loads:
            f = figures[load]
            report.rows.append(
                (task, load, *(f[f"p{p}"] for p in PERCENTS), f["p95_whole"], f["jobs"])
            )
    report.finish(args.json)
    plot(found, loads, args.prefix)


if __name__ == "__main__":
    main()
