"""Two batches side by side: in threads of one process, or in separate processes.

    python benchmarks/lanes.py [--json]

The model host on a CPU uses processes. Each thread or process loops over batches of the shipped
models for a few seconds, with one thread for torch's operations.
"""

import multiprocessing
import queue
import threading
from collections.abc import Sequence
from typing import Any

import torch
from efficiency import bare, requests
from harness import Report, arguments, median, take_turns

from crossmodal.settings import load_settings
from worker.host.pipeline import HostRequest, ModelPipeline

PLACES = 2
BATCHES = (1, 4, 16)
LOOP_S = 3.0
LIMIT_S = 60.0


def side_by_side(
    kind: Any, found: Any, pipeline: ModelPipeline, work: list[HostRequest], n: int
) -> float:
    """Return the total items per second; each thread or process puts its own in `found`."""
    places = [kind(target=loop, args=(found, pipeline, work, n)) for _ in range(PLACES)]
    for place in places:
        place.start()
    rates = [float(found.get(timeout=LIMIT_S)) for _ in places]
    for place in places:
        place.join()
    return sum(rates)


def loop(found: Any, pipeline: ModelPipeline, work: Sequence[HostRequest], batch: int) -> None:
    """Measure one thread or process."""
    found.put(bare(pipeline, work, batch, 1, LOOP_S))


def measure(rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Measure the rates by task, batch size and way."""
    torch.set_num_threads(1)  # a forked process would not have torch's thread pool
    pipelines, work, _ = requests(load_settings())
    fork = multiprocessing.get_context("fork")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for task, pipeline in pipelines.items():
        found[task] = {}
        for n in BATCHES:
            some = work[task]
            ways = {
                "one": lambda p=pipeline, w=some, n=n: bare(p, w, n, 1, LOOP_S),
                "threads": lambda p=pipeline, w=some, n=n: side_by_side(
                    threading.Thread, queue.Queue(), p, w, n
                ),
                "processes": lambda p=pipeline, w=some, n=n: side_by_side(
                    fork.Process, fork.Queue(), p, w, n
                ),
            }
            rates = take_turns(ways, rounds)
            found[task][str(n)] = {way: round(median(v), 1) for way, v in rates.items()}
    return found


def main() -> None:
    """Measure, print and save the results."""
    args = arguments(__doc__).parse_args()
    found = measure(args.rounds)
    report = Report(
        "lanes",
        "Batches side by side",
        ("task", "batch", "one alone", f"{PLACES} threads", f"{PLACES} processes"),
        figures=found,
        notes="Items a second, medians of the rounds. Every operation runs on one core.",
    )
    for task, sizes in found.items():
        for n, rates in sizes.items():
            report.rows.append((task, int(n), *rates.values()))
    report.finish(args.json)


if __name__ == "__main__":
    main()
