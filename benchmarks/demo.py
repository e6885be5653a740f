"""How long a first user waits: the demo, until all its processes have ended.

    python benchmarks/demo.py [--json] [--rounds N]

It times what `make demo` does after the install: start a private queue, worker and Flower, draw
sixteen prompts, caption the pictures, and stop everything.
"""

import json
import subprocess
import sys
import tempfile

from harness import Report, arguments, median

COMMAND = [sys.executable, "-m", "crossmodal.cli", "demo", "--json", "--out"]


def once() -> dict[str, float]:
    """Return the times of one run in an empty folder, in seconds."""
    with tempfile.TemporaryDirectory(prefix="crossmodal-bench-") as folder:
        done = subprocess.run(
            [*COMMAND, folder], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    found = json.loads(done.stdout)
    first_s = found["ready_s"] + min(job["draw_s"] for job in found["jobs"])
    return {"ready": found["ready_s"], "first picture": first_s, "whole": found["total_s"]}


def main() -> None:
    """Measure, print and save the results."""
    args = arguments(__doc__, rounds=5).parse_args()
    runs = [once() for _ in range(args.rounds)]
    found = {what: [round(run[what], 1) for run in runs] for what in runs[0]}
    report = Report(
        "demo",
        "The demo",
        ("until", "s", "fewest", "most"),
        figures={"seconds": found},
        notes="Medians. Ready: Valkey, the worker with its models, and Flower have started. "
        "Whole: 16 pictures and captions, and everything has ended.",
    )
    report.rows = [(what, median(s), min(s), max(s)) for what, s in found.items()]
    report.finish(args.json)


if __name__ == "__main__":
    main()
