"""Stable Diffusion 1.5 in its true dimensions, with random weights, on this CPU.

    python benchmarks/sd15.py [--json] [--size 256] [--steps 2] [--scratch FOLDER] [--small]

It runs `crossmodal models check`, then a worker and a client: a job's steps, a job longer than
CROSSMODAL_INFERENCE_TIMEOUT_S, and a canceled job. The model's folder, of 4 GB, is made in a
scratch folder and reused if it exists. Not part of `make bench`: it needs 8 GB of memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from harness import Report, arguments, median
from stack import Running, real_stack

from crossmodal.jobs.record import Progress
from producer import JobHandle
from worker.host_process import MODEL_HOST

SAMPLE_S = 0.25
QUIET_S = 0.5  # without CPU use: the batch has ended
MIN_TIMEOUT_S = 3.0  # for the work outside the steps
PROMPT = "a red circle on a white background"


class Memory:
    """The peak memory of the model host and its forks, with shared pages counted once."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_S):
            try:
                found = sum(one.memory_full_info().pss for one in host_processes())
            except psutil.NoSuchProcess:
                continue
            self.peak_bytes = max(self.peak_bytes, found)


def host_processes() -> list[psutil.Process]:
    """Return the model host of this benchmark, then its forks."""
    for one in psutil.Process().children(recursive=True):
        try:
            if MODEL_HOST in one.cmdline() and os.getpgid(one.pid) == one.pid:
                return [one, *one.children(recursive=True)]
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return []


def busy_s() -> float:
    """Return the CPU time of the host and its forks so far."""
    return sum(sum(one.cpu_times()[:2]) for one in host_processes())


def until_quiet() -> float:
    """Wait until the host stops computing; return the seconds that it took."""
    begun = last = time.monotonic()
    spent = busy_s()
    while time.monotonic() - last < QUIET_S:
        time.sleep(0.02)  # poll: no event marks the end of a computation
        now = busy_s()
        if now - spent > 0.02:  # more than its heartbeat and connections take
            spent, last = now, time.monotonic()
    return last - begun


def folder_of(scratch: Path, args: argparse.Namespace) -> Path:
    """Return the model's folder, made if it does not exist."""
    folder = scratch / ("sd15-small" if args.small else "sd15")
    if not (folder / "model_index.json").exists():
        options = ["--small"] if args.small else []
        make = [sys.executable, "-W", "ignore", "-m", "tests.tiny.sd15", str(folder), *options]
        subprocess.run(make, check=True)
    defaults = {"width": args.size, "height": args.size, "steps": args.steps}
    lines = ["[defaults]", *(f"{name} = {value}" for name, value in defaults.items())]
    (folder / "crossmodal.toml").write_text("\n".join(lines) + "\n")
    return folder


def checked(folder: Path) -> dict[str, Any]:
    """Run `crossmodal models check`; return its findings and its duration."""
    command = [
        sys.executable,
        "-m",
        "crossmodal.cli",
        "models",
        "check",
        str(folder),
        "--device",
        "cpu",
        "--json",
    ]
    begun = time.monotonic()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    [found] = json.loads(done.stdout)
    return found | {"whole_s": round(time.monotonic() - begun, 1)}


def followed(job: JobHandle, on_progress: Callable[[Progress], object]) -> list[float]:
    """Return the times at which the client saw a job start, step, and end."""
    seen = []
    for event in job.events():
        if isinstance(event, Progress):
            on_progress(event)
        elif event.state == "queued":
            continue
        seen.append(time.monotonic())
    return seen


def drawn(running: Running, steps: int) -> dict[str, Any]:
    """Run an undisturbed job; return its steps and its longest silence."""
    told: list[tuple[int, int]] = []
    job = running.client.txt2img(PROMPT, seed=1, steps=steps)
    seen = followed(job, lambda one: told.append((one.step, one.of)))
    gaps = [later - earlier for earlier, later in pairwise(seen)]
    return {
        "state": str(job.status().state),
        "attempts": job.status().attempt,
        "told": told,
        "run_s": round(seen[-1] - seen[0], 2),
        "step_s": round(median(gaps[1:-1] or gaps), 2),
        "longest_silence_s": round(max(gaps), 2),
    }


def canceled(running: Running, steps: int) -> dict[str, float | str]:
    """Cancel a job at its first step; return when `cancel` returned and when the host went idle."""
    job = running.client.txt2img(PROMPT, seed=2, steps=steps)
    next(one for one in job.events() if isinstance(one, Progress))
    begun = time.monotonic()
    state = str(job.cancel())
    said_s = time.monotonic() - begun
    quiet_s = until_quiet() + said_s
    return {"state": state, "said_s": round(said_s, 3), "quiet_s": round(quiet_s, 2)}


def served(folder: Path, timeout_s: float, args: argparse.Namespace) -> dict[str, Any]:
    """Run the jobs on a worker whose batches may be silent for `timeout_s`."""
    os.environ |= {
        "CROSSMODAL_BUNDLE": str(folder),
        "CROSSMODAL_INFERENCE_TIMEOUT_S": str(timeout_s),
    }
    begun = time.monotonic()
    with Memory() as memory, real_stack("cpu") as running:
        ready_s = round(time.monotonic() - begun, 1)
        host = host_processes()[0].pid
        short = drawn(running, args.steps)
        long = drawn(running, args.long_steps)
        ended = canceled(running, args.long_steps)
        after = drawn(running, args.steps)
        is_same_host = host_processes()[0].pid == host
    return {
        "ready_s": ready_s,
        "timeout_s": timeout_s,
        "short": short,
        "long": long,
        "canceled": ended,
        "after": after,
        "same_host": is_same_host,
        "peak_bytes": memory.peak_bytes,
    }


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = arguments(__doc__, rounds=None)
    parser.add_argument("--size", type=int, default=256, help="of the pictures, in pixels")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--long-steps", type=int, default=8, help="of the job that takes longer")
    parser.add_argument("--timeout", type=float, help="the longest silence; else it is found")
    parser.add_argument("--scratch", type=Path, help="where the folder is made, and stays")
    parser.add_argument("--small", action="store_true", help="the same parts, a few MB")
    return parser.parse_args()


def measured(scratch: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure both parts. The timeout is shorter than a short run, but longer than a step."""
    folder = folder_of(scratch, args)
    weights = sum(one.stat().st_size for one in folder.rglob("*.safetensors"))
    check = checked(folder)
    timeout_s = args.timeout or max(MIN_TIMEOUT_S, round(0.6 * check["run_s"], 1))
    return {
        "size": args.size,
        "steps": args.steps,
        "weights_bytes": weights,
        "check": {name: value for name, value in check.items() if name != "schema"},
        "worker": served(folder, timeout_s, args),
    }


def rows(found: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the rows of the table."""
    check, worker = found["check"], found["worker"]
    long, ended = worker["long"], worker["canceled"]
    return [
        ("check: weights on disk (GB)", round(found["weights_bytes"] / 1e9, 2)),
        ("check: loaded in (s)", check["load_s"]),
        ("check: warm-up (s)", check["warmup_s"]),
        ("check: a run (s)", check["run_s"]),
        ("check: a step (s)", check["step_s"]),
        ("check: most memory (GB)", round(check["peak_bytes"] / 1e9, 2)),
        ("check: same seed, same bytes", str(check["repeats_alone"])),
        ("check: the whole command (s)", check["whole_s"]),
        ("worker: ready after (s)", worker["ready_s"]),
        ("worker: most memory, host and forks (GB)", round(worker["peak_bytes"] / 1e9, 2)),
        ("worker: silence allowed (s)", worker["timeout_s"]),
        (f"worker: a job of {long['told'][-1][1]} steps (s)", long["run_s"]),
        ("worker: its median step (s)", long["step_s"]),
        ("worker: its longest silence (s)", long["longest_silence_s"]),
        ("worker: its attempts", long["attempts"]),
        ("cancel: the job is canceled after (s)", ended["said_s"]),
        ("cancel: nothing computes any more after (s)", ended["quiet_s"]),
        ("cancel: the same host draws the next job", str(worker["same_host"])),
    ]


def main() -> None:
    """Measure, print and save the results."""
    args = options()
    if args.scratch is not None:
        found = measured(args.scratch, args)
    else:
        with tempfile.TemporaryDirectory(prefix="crossmodal-sd15-") as scratch:
            found = measured(Path(scratch), args)
    report = Report(
        "sd15-small" if args.small else "sd15",
        "Stable Diffusion 1.5, its true dimensions with random weights, on a CPU",
        ("what", "measured"),
        figures=found,
        notes=f"Pictures of {args.size} x {args.size}, {args.steps} steps (which PNDM makes one "
        "more), float32, a core a batch. The machine's two cores are shared. Memory is what "
        "processes hold, pages that they share counted once; of the check, its process's peak. "
        "A job's times are seen by its client. One run of each.",
    )
    report.rows = rows(found)
    report.finish(args.json)


if __name__ == "__main__":
    main()
