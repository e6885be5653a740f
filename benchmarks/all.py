"""Run every benchmark, one after the other: `make bench`."""

import subprocess
import sys
from pathlib import Path

NAMES = (
    "efficiency",
    "latency",
    "batching",
    "seed_baseline",
    "queues",
    "servers",
    "lanes",
    "growth",
    "scaling",
    "streams",
    "autoscale",
    "capacity",
    "demo",
    "gpu",
)


def main() -> None:
    """Run all benchmarks. Exits with status 1 if one failed."""
    failed = []
    for name in NAMES:
        print(f"== {name}", flush=True)
        script = Path(__file__).with_name(f"{name}.py")
        if subprocess.run([sys.executable, str(script)], check=False).returncode:
            failed.append(name)
    raise SystemExit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
