"""Jobs per second through one queue with more devices.

    python benchmarks/scaling.py [--json]

A device here is a core, to which its model host and Celery worker are pinned. If there are two
more cores than devices, the queue and the client have those.
"""

import os
import sys
import time
from contextlib import ExitStack
from typing import Any

from efficiency import PROMPTS
from harness import Report, arguments, median, save_plot, take_turns
from stack import DRAIN_S, queue_server

from crossmodal.local.stack import Stack
from crossmodal.settings import load_settings
from producer import Client

ITEMS = 2048
PIN = """
import os, runpy, sys
os.sched_setaffinity(0, {int(sys.argv.pop(1))})
runpy.run_module("crossmodal.cli", run_name="__main__")
"""


class Devices:
    """Workers pinned to one core each, started and stopped for each round."""

    def __init__(self, folder: Any, client: Client) -> None:
        self._folder = folder
        self._client = client

    def rate(self, count: int) -> float:
        """Return pictures per second with `count` devices, without their start-up."""
        with ExitStack() as cleanup:
            log = cleanup.enter_context((self._folder / "log").open("ab"))
            stack = cleanup.enter_context(Stack({}, log))
            for core in sorted(os.sched_getaffinity(0))[:count]:
                ready = self._folder / f"ready-{core}"
                ready.unlink(missing_ok=True)
                argv = [
                    sys.executable,
                    "-c",
                    PIN,
                    str(core),
                    "worker",
                    "--devices",
                    "cpu",
                    "--queues",
                    "txt2img.bulk",
                    "--ready-file",
                    str(ready),
                ]
                stack.start(f"worker {core}", argv, DRAIN_S)
            for core in sorted(os.sched_getaffinity(0))[:count]:
                stack.wait_ready(self._folder / f"ready-{core}")
            list(self._client.map_txt2img(PROMPTS))  # warm up
            begun = time.perf_counter()
            made = sum(1 for _ in self._client.map_txt2img(PROMPTS[i % 64] for i in range(ITEMS)))
            return made / (time.perf_counter() - begun)


def main() -> None:
    """Measure, print and save the results."""
    from matplotlib.figure import Figure

    args = arguments(__doc__).parse_args()
    cores = len(os.sched_getaffinity(0))
    counts = [1, 2, *([4] if cores >= 6 else [])]
    with queue_server() as (folder, _), Client(load_settings()) as client:
        devices = Devices(folder, client)
        turns = take_turns({str(n): (lambda n=n: devices.rate(n)) for n in counts}, args.rounds)
    rates = {n: round(median(turns[str(n)]), 1) for n in counts}
    found = {"rates": {str(n): r for n, r in rates.items()}, "ratio": round(rates[2] / rates[1], 2)}
    report = Report(
        "scaling",
        "More devices",
        ("devices", "a second", "of one"),
        figures=found,
        notes="Bulk txt2img. Each device has one core for its model host and Celery worker; "
        "the queue server and the client run beside them.",
    )
    report.rows = [(n, r, round(r / rates[1], 2)) for n, r in rates.items()]
    report.finish(args.json)
    figure = Figure(figsize=(4, 3))
    axes = figure.subplots()
    axes.bar([str(n) for n in counts], list(rates.values()))
    axes.set_xlabel("devices")
    axes.set_ylabel("a second")
    save_plot("scaling", figure)


if __name__ == "__main__":
    main()
