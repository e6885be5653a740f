"""The first bottleneck of a fleet of up to 1,000 GPUs: a simulation with measured costs.

    python benchmarks/capacity.py [--json] [--keep]

It first measures the costs of a job on this machine (`benchmarks/job_costs.py`; `--keep` takes
those of the last run). Then it simulates, in steps of half a second, jobs that arrive at devices,
which the real policy of `crossmodal autoscale` starts and stops. Devices, networks and limits of
servers are assumptions, stated in the table's notes; nothing here has run on 1,000 GPUs.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from harness import RESULTS, Report, arguments
from job_costs import measure
from manual import refresh, save_picture
from numpy.typing import NDArray
from simulation import (
    COOLDOWN_S,
    FLEETS,
    INTERVAL_S,
    LIMITS,
    LOAD,
    MESSAGE,
    PATTERNS,
    PERIOD_S,
    START_S,
    STEP_S,
    TARGET_S,
    Costs,
    Fleet,
    costs_of,
    simulate,
)

SIZES = (1, 10, 100, 1_000)


# -- what saturates ---------------------------------------------------------------------


def shares(fleet: Fleet, most: float, costs: Costs, rate: float) -> dict[str, float]:
    """Return the load of each part as a share of its limit, with all devices on."""
    return {
        "Redis CPU": (rate * costs.redis_cpu_s + most * costs.idle_redis_cpu) / LIMITS.redis_cpu,
        "Redis connections": most * costs.connections / LIMITS.connections,
        "Redis network": (rate * costs.redis_bytes + most * costs.idle_bytes) / LIMITS.network,
        "store": rate * costs.puts / LIMITS.puts,
        "Celery": rate / most * costs.celery_cpu_s / LIMITS.celery_cpu,
    }


def enough_for(fleet: Fleet, costs: Costs) -> dict[str, float]:
    """Return how many devices at full load each part can carry.

    For Celery, it is the share of one device that the device's own worker can carry.
    """
    return {part: 1 / share for part, share in shares(fleet, 1, costs, fleet.rate).items()}


def row(fleet: Fleet, most: int, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table row: a fleet of `most` devices, under bursts."""
    costs = costs_of(measured, fleet)
    outcome = simulate(fleet, most, costs, "bursts")
    rate = LOAD * most * fleet.rate
    used = shares(fleet, most, costs, rate)
    worst = max(used, key=lambda part: used[part])
    least_waiting = outcome.waiting[-round(PERIOD_S / STEP_S) :].min()
    grows = least_waiting > rate * TARGET_S  # the queue stays long, even between bursts
    return {
        "fleet": fleet.name,
        "GPUs": most,
        "a second": round(rate),
        "Redis CPU (%)": round(100 * used["Redis CPU"] * LIMITS.redis_cpu),
        "Redis (Mbit/s)": round(8e-6 * used["Redis network"] * LIMITS.network),
        "connections": round(most * costs.connections),
        "puts a second": round(rate * costs.puts),
        "gateways": math.ceil(rate * costs.gateway_cpu_s / LIMITS.gateway_cpu),
        "hours kept": round(LIMITS.memory / (rate * costs.redis_memory) / 3_600),
        "wait p95 (s)": "grows" if grows else round(outcome.p95_s),
        "first over its limit": worst if used[worst] > 1 else "-",
    }


def pattern_rows(measured: Mapping[str, Any], most: int = 100) -> list[dict[str, Any]]:
    """Return how the scaler copes with each pattern of arrivals."""
    fleet = FLEETS[0]
    costs, found = costs_of(measured, fleet), []
    for name in PATTERNS:
        outcome = simulate(fleet, most, costs, name)
        found.append(
            {
                "arrivals": name,
                "devices on": round(outcome.devices, 1),
                "wait p50 (s)": round(outcome.p50_s, 1),
                "wait p95 (s)": round(outcome.p95_s, 1),
                "outcome": outcome,
            }
        )
    return found


# -- results ----------------------------------------------------------------------------


def plot(measured: Mapping[str, Any], patterns: Sequence[dict[str, Any]]) -> None:
    """Plot the load of each part, and the scaler's behavior."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.4), layout="constrained")
    above, below = figure.subplots(2, 3)
    sizes = np.geomspace(1, 1_000, 60)
    for axes, fleet in zip(above, FLEETS, strict=True):
        costs = costs_of(measured, fleet)
        lines = [shares(fleet, n, costs, n * fleet.rate) for n in sizes]
        for part in lines[0]:
            axes.plot(sizes, [100 * line[part] for line in lines], label=part)
        axes.axhline(100, color="black", linestyle=":")
        axes.set(
            xscale="log",
            yscale="log",
            ylim=(0.01, 10_000),
            xlabel="GPUs, all busy",
            title=fleet.name,
        )
    above[0].set_ylabel("% of the limit")
    above[0].legend(fontsize="small")
    for axes, found in zip(below, patterns, strict=True):
        outcome = found["outcome"]
        minutes = outcome.at / 60
        axes.plot(minutes, outcome.ready, label="GPUs on")
        axes.plot(minutes, _smooth(outcome.rate) / FLEETS[0].rate, label="GPUs' worth of work")
        axes.plot(minutes, outcome.waiting / FLEETS[0].slots, label=f"waiting / {FLEETS[0].slots}")
        axes.set(xlabel="minutes", title=f"{FLEETS[0].name}: {found['arrivals']}")
    below[0].legend(fontsize="small")
    save_picture("capacity", figure)


def _smooth(values: NDArray[np.float64], steps: int = 60) -> NDArray[np.float64]:
    return np.convolve(values, np.ones(steps) / steps, mode="same")


def notes(measured: Mapping[str, Any], patterns: Sequence[dict[str, Any]]) -> str:
    """Return the notes: measured costs, assumptions, and the limits of each part."""
    lines = ["Measured here, a request (an item, in bulk):", "", *_cost_table(measured), ""]
    lines += [
        f"A worker at rest: "
        f"{1e3 * measured['idle']['redis_cpu_s']:.2f} ms of Redis's processor and "
        f"{measured['idle']['redis_calls']:.0f} commands a second; {measured['connections']} "
        "connections. A request to the gateway that submits and waits: "
        f"{1e3 * measured['gateway_cpu_s']:.1f} ms.",
        "",
        "Assumed: a GPU with a diffusion model draws "
        f"{FLEETS[0].batch} pictures in {FLEETS[0].batch_s:g} s, one with a small model "
        f"{FLEETS[1].batch} in {1e3 * FLEETS[1].batch_s:g} ms, bulk messages of {MESSAGE} items; "
        f"a worker starts in {START_S:g} s; fleets are {LOAD:.0%} busy on average, with bursts; "
        f"target wait {TARGET_S:g} s, a decision every {INTERVAL_S:g} s, cooldown {COOLDOWN_S:g} s;"
        f" limits: {LIMITS.redis_cpu:.0%} of one core and {LIMITS.connections:,} connections "
        "(its default) for Redis, 10 Gbit/s, "
        f"{LIMITS.puts:,.0f} puts a second (Amazon's for one prefix of S3), "
        f"{LIMITS.celery_cpu:.0%} of a core for each Celery worker, {LIMITS.gateway_cpu:.0%} for a "
        f"gateway. Hours kept: `CROSSMODAL_RETENTION_S` for which {LIMITS.memory / 1e9:.0f} GB of "
        "Redis are enough. Where the wait grows, more comes than a part "
        "can take.",
        "",
        "GPUs, all busy, that each part can carry:",
        "",
        *_enough_table(measured),
        "",
        f"The scaler and 100 GPUs ({FLEETS[0].name}):",
        "",
        *_table([{k: v for k, v in found.items() if k != "outcome"} for found in patterns]),
    ]
    return "\n".join(lines)


def _cost_table(measured: Mapping[str, Any]) -> list[str]:
    rows = [
        {
            "": task,
            "Redis CPU (ms)": 1e3 * job["redis_cpu_s"],
            "Redis commands": job["redis_calls"],
            "Redis bytes": job["redis_bytes"],
            "Redis memory (bytes)": job["redis_memory"],
            "puts": job["store_put"],
            "gets": job["store_get"],
            "stored bytes": job["store_bytes"],
            "worker (ms)": 1e3 * job["celery_cpu_s"],
            "client (ms)": 1e3 * job["client_cpu_s"],
        }
        for task, job in measured["jobs"].items()
    ]
    return _table(rows)


def _enough_table(measured: Mapping[str, Any]) -> list[str]:
    rows = []
    for fleet in FLEETS:
        enough = enough_for(fleet, costs_of(measured, fleet))
        shown = {part: _count(count) for part, count in enough.items()}
        shown["Celery"] = (
            "each its own" if enough["Celery"] >= 1 else f"{enough['Celery']:.2f} of one"
        )
        rows.append({"": fleet.name, **shown})
    return _table(rows)


def _count(devices: float) -> str:
    return f"{devices:,.0f}" if devices >= 10 else f"{devices:.1f}"


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    shown = [
        [
            f"{v:,.3g}"
            if isinstance(v, float) and v < 1_000
            else f"{v:,.0f}"
            if isinstance(v, float)
            else str(v)
            for v in row.values()
        ]
        for row in rows
    ]
    cells = [list(rows[0]), ["---", *["--:"] * (len(rows[0]) - 1)], *shown]
    return [f"| {' | '.join(line)} |" for line in cells]


def main() -> None:
    """Measure, simulate, print and save the results."""
    parser = arguments(__doc__, rounds=None)
    parser.add_argument("--keep", action="store_true", help="use the costs of the last run")
    args = parser.parse_args()
    last = RESULTS / "capacity.json"
    measured = json.loads(last.read_text())["measured"] if args.keep else measure()
    rows = [row(fleet, most, measured) for fleet in FLEETS for most in SIZES]
    patterns = pattern_rows(measured)
    enough = {fleet.name: enough_for(fleet, costs_of(measured, fleet)) for fleet in FLEETS}
    report = Report(
        "capacity",
        "What up to 1,000 GPUs ask of the rest",
        tuple(rows[0]),
        figures={"measured": measured, "rows": rows, "enough": enough},
        notes=notes(measured, patterns),
    )
    report.rows = [tuple(r.values()) for r in rows]
    report.finish(args.json)
    plot(measured, patterns)
    refresh("scaling.md", "capacity")


if __name__ == "__main__":
    main()
