"""What a machine with a GPU is to show in eight minutes: these tests, then `benchmarks/gpu.py`.

    python -m tests.gpu                                  # or: make gpu
    CROSSMODAL_TEST_DEVICE=cpu python -m tests.gpu       # a dry run, of small sizes

Needs the extras `worker` and `hf`, pytest with pytest-timeout, and psutil. Results go to the folder
that OUT names, else to `benchmarks/results`; those of a dry run nowhere else.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_S = 480.0
TESTS_S = 240.0
ROOT = Path(__file__).parents[2]


def main() -> int:
    """Both parts, whatever becomes of the first; 1 where one has failed or was too slow."""
    due = time.monotonic() + LIMIT_S
    is_dry = os.environ.get("CROSSMODAL_TEST_DEVICE") == "cpu"
    with tempfile.TemporaryDirectory(prefix="crossmodal-gpu-") as scratch:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        env = {**os.environ, "PYTHONPATH": path, "TMPDIR": scratch}
        if is_dry:
            env.setdefault("OUT", scratch)
        # Of another torch than the pinned one, warnings are to be seen, and no more.
        tests = [
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-W",
            "default",
            "--durations=8",
            "--basetemp",
            f"{scratch}/pytest",
            "tests/gpu",
        ]
        options = ["--device", "cpu", "--small"] if is_dry else []
        measures = ["benchmarks/gpu.py", "--parts", "models", *options]
        fine = [_run(tests, env, TESTS_S), _run(measures, env, due - time.monotonic())]
    return 0 if all(fine) else 1


def _run(argv: list[str], env: dict[str, str], limit_s: float) -> bool:
    """Whether a program of Python ended well, in time."""
    begun = time.monotonic()
    try:
        done = subprocess.run([sys.executable, *argv], cwd=ROOT, env=env, timeout=limit_s)
    except subprocess.TimeoutExpired:
        print(f"ended: {argv[-1]} took longer than {limit_s:.0f} s", flush=True)
        return False
    print(
        f"{' '.join(argv[:2])}: status {done.returncode}, {time.monotonic() - begun:.0f} s",
        flush=True,
    )
    return done.returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
