"""How long a first user waits: the demo, from its start to the end of all that it started.

    python benchmarks/demo.py [--json] [--rounds N]

What `make demo` does after the install: a queue, a worker and Flower of its own, sixteen prompts
drawn, the pictures captioned, and all of it ended.
"""

import json
import subprocess
import sys
import tempfile

from harness import Report, arguments, median

COMMAND = [sys.executable, "-m", "crossmodal.cli", "demo", "--json", "--out"]


def once() -> dict[str, float]:
    """Seconds of one run, in an empty folder."""
    with tempfile.TemporaryDirectory(prefix="crossmodal-bench-") as folder:
        done = subprocess.run(
            [*COMMAND, folder], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    found = json.loads(done.stdout)
    first_s = found["ready_s"] + min(job["draw_s"] for job in found["jobs"])
    return {"ready": found["ready_s"], "first picture": first_s, "whole": found["total_s"]}


def main() -> None:
    """Measure, print, and write down."""
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
