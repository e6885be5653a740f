"""Efficiency, latency and batching on a CUDA device; without one it says so and ends.

python benchmarks/gpu.py [--json]
"""

import subprocess
import sys
from pathlib import Path

from harness import RESULTS, arguments

from crossmodal.console import console, print_json
from worker.devices import gpu_names

PARTS = ("efficiency", "latency", "batching")


def main() -> None:
    """Run the other benchmarks with the GPU as their device; keep their results under `gpu-`."""
    args = arguments(__doc__).parse_args()
    names = gpu_names()
    if not names:
        text = "there is no CUDA device here: nothing was measured"
        print_json({"skipped": text}) if args.json else console.print(text)
        return
    for part in PARTS:
        argv = [sys.executable, str(Path(__file__).with_name(f"{part}.py")),
                "--device", "cuda", "--prefix", "gpu-", "--rounds", str(args.rounds)]  # fmt: skip
        subprocess.run(argv, check=True)
    if args.json:
        files = [RESULTS / f"gpu-{part}.json" for part in PARTS]
        console.print_json("[" + ",".join(file.read_text() for file in files) + "]")


if __name__ == "__main__":
    main()
