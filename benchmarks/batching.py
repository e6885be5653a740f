"""The benefit of batching: rate and latency against the max batch size.

    python benchmarks/batching.py [--json]

Each size runs on its own stack, with as many jobs in hand as a batch may have requests, and is
overloaded with captions to make.
"""

import os
import statistics
import time
from typing import Any

from efficiency import requests
from harness import Report, device_arguments, percentile, save_plot
from stack import Running, real_stack

SIZES = (1, 2, 4, 8, 16, 32, 64)
JOBS = 192
MOST_PROCESSES = 32  # max decoders of a device: each takes 76 MB


def measure(running: Running) -> dict[str, Any]:
    """Measure captions per second, batch sizes, and job times from start to end."""
    _, _, files = requests(running.settings)
    submit = running.client.img2txt
    for round_of in (32, JOBS):  # the first one only warms up
        begun = time.perf_counter()
        jobs = [submit(files[i % len(files)]) for i in range(round_of)]
        for _ in running.client.as_completed(jobs):
            pass
        took_s = time.perf_counter() - begun
    results = [job.result() for job in jobs]
    ran = [r.timings.total_s - r.timings.queued_s for r in results]
    return {
        "per_second": round(len(jobs) / took_s, 1),
        "mean_batch": round(statistics.mean(r.batch_size for r in results), 2),
        "largest_batch": max(r.batch_size for r in results),
        "p50_ms": round(percentile(ran, 50) * 1e3, 1),
        "p95_ms": round(percentile(ran, 95) * 1e3, 1),
    }


def plot(found: dict[int, dict[str, Any]], prefix: str) -> None:
    """Plot rate and latency over the max batch size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2))
    left, right = figure.subplots(1, 2)
    left.plot(list(found), [f["per_second"] for f in found.values()], marker="o")
    left.set_ylabel("captions a second")
    right.plot(list(found), [f["p50_ms"] for f in found.values()], marker="o", label="p50")
    right.plot(list(found), [f["p95_ms"] for f in found.values()], marker="o", label="p95")
    right.set_ylabel("from start to end (ms)")
    right.legend()
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("max_batch")
    save_plot(prefix + "batching", figure)


def main() -> None:
    """Measure, print and save the results."""
    args = device_arguments(__doc__).parse_args()
    found: dict[int, dict[str, Any]] = {}
    for size in SIZES:
        os.environ["CROSSMODAL_MAX_BATCH"] = str(size)
        processes = str(max(2, min(size, MOST_PROCESSES)))
        with real_stack(args.device, "--concurrency", processes) as running:
            found[size] = measure(running)
    report = Report(
        args.prefix + "batching",
        "Captions against the largest batch",
        ("max_batch", "a second", "mean batch", "largest", "p50 (ms)", "p95 (ms)"),
        figures={str(size): figures for size, figures in found.items()},
        notes=f"{JOBS} interactive img2txt jobs, all submitted at once; as many in hand as "
        f"max_batch, at least 2 and at most {MOST_PROCESSES}. Latency is from an attempt's start "
        "to its end.",
    )
    report.rows = [(size, *figures.values()) for size, figures in found.items()]
    report.finish(args.json)
    plot(found, args.prefix)


if __name__ == "__main__":
    main()
