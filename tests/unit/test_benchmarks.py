"""What the benchmarks reckon with, where it takes no measurement to see."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.at_once import at_once

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def of_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # they are scripts, and import each other so


@pytest.mark.usefixtures("of_benchmarks")
@at_once(
    "surplus, starts, ready",
    [(1, [(60.0, 3), (75.0, 1)], 5), (3, [(60.0, 2)], 5), (5, [], 5), (7, [], 3)],
)
def test_simulated_workers_that_start_are_let_go_first(
    surplus: int, starts: list[tuple[float, int]], ready: int
) -> None:
    simulation: Any = import_module("simulation")
    scaled = simulation.Scaled(simulation.FLEETS[0], 10)
    scaled.ready, scaled._starts = 5, [(60.0, 3), (75.0, 2)]
    scaled._let_go(surplus)
    assert (scaled._starts, scaled.ready) == (starts, ready)


@pytest.mark.usefixtures("of_benchmarks")
def test_a_benchmark_that_takes_no_turns_knows_no_rounds() -> None:
    harness: Any = import_module("harness")
    assert harness.arguments("").parse_args(["--rounds", "2"]).rounds == 2
    with pytest.raises(SystemExit):
        harness.arguments("", rounds=None).parse_args(["--rounds", "2"])


@pytest.mark.slow
def test_every_benchmark_finds_what_it_imports() -> None:
    names = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(f"import {name}" for name in names)],
        cwd=BENCHMARKS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
