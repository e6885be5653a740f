"""A soak test: hours at half load, checked for growth of memory, descriptors, threads, keys.

    python benchmarks/soak.py --hours 6 [--json]       (make soak HOURS=6)
    python benchmarks/soak.py --of FILE                evaluates an interrupted run

A real stack runs under the load of `soak_load.py`; every ten seconds a line of figures from
`soak_samples.py` is appended to `soak.jsonl`. Records are kept for a short time only, so that after
the warm-up as many expire as are added. Exits with status 1 if something grows, or if a request
that should succeed does not.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS, Report, arguments
from manual import save_picture
from numpy.typing import NDArray
from soak_load import Load, measured_rate, soaking
from soak_samples import Sampler

EVERY_S = 10.0
WARM_UP = 0.25  # share of the run; at least twice the retention, until the store is full
MOST_POINTS = 600  # max points for a slope
# The max growth of a series in the measured time: a share of its median, or an absolute value.
# Not PSS: a process's share of a library's pages grows when another process that maps them ends.
BOUNDS = {
    "USS MB": (0.05, 10.0),
    "RSS MB": (0.05, 10.0),
    "used MB": (0.05, 10.0),
    "fds": (0.05, 6.0),
    "threads": (0.05, 3.0),
    "connections": (0.1, 4.0),
    "unacked": (0.1, 4.0),
    "keys": (0.1, 100.0),
    "temporary": (0.1, 10.0),
    "files": (0.1, 200.0),
}
PANELS = {  # title of each panel -> its series
    "memory of their own (USS, MB)": " USS MB",
    "descriptors": " fds",
    "threads": " threads",
    "Redis's memory (MB)": ("Redis used MB",),
    "what is kept": ("Redis keys", "store files"),
    "what is in use": ("Redis connections", "Celery unacked", "temporary files"),
}


def run(hours: float, file: Path) -> None:
    """Load a stack for `hours`, and write a sample every `EVERY_S` to `file`."""
    seconds = hours * 3_600
    kept_s = int(min(900, max(60, seconds / 8)))
    with soaking(kept_s) as stack:
        full = measured_rate(stack)
        about = {"hours": hours, "kept_s": kept_s, "full_rate": full, "rate": full / 2}
        print(f"{full:.1f} requests a second at full load: {full / 2:.1f} for {hours:g} h")
        with file.open("w") as lines, Load(stack, full / 2) as load:
            lines.write(json.dumps(about) + "\n")
            sampler, begun = Sampler(stack), time.monotonic()
            for number in range(int(seconds / EVERY_S)):
                time.sleep(max(0.0, begun + number * EVERY_S - time.monotonic()))
                sample = {"s": round(time.monotonic() - begun, 1), **sampler.sample()}
                lines.write(json.dumps(sample | load.counts()) + "\n")
                lines.flush()


def kind_of(name: str) -> str:
    """Return the key of a series in `BOUNDS`, or ""."""
    return next((kind for kind in BOUNDS if kind in name), "")


def slope(at: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Return the growth per hour: the median slope of all pairs (Theil-Sen), robust to peaks."""
    every = max(1, len(at) // MOST_POINTS)
    x, y = at[::every], values[::every]
    first, second = np.triu_indices(len(x), 1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first]))) * 3_600


def warm_from(about: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> float:
    """Return when the warm-up ends, in seconds; at the latest halfway through the run."""
    lasted_s = samples[-1]["s"]
    return float(min(lasted_s / 2, max(WARM_UP * lasted_s, 2 * about["kept_s"])))


def verdicts(
    about: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the median, max and growth of each series, and whether it is within its bound."""
    from_s = warm_from(about, samples)
    warm = [sample for sample in samples if sample["s"] >= from_s]
    at = np.array([sample["s"] for sample in warm])
    found = []
    for name in samples[0]:
        if not (kind := kind_of(name)):
            continue
        values = np.array([sample.get(name, 0) for sample in warm], dtype=np.float64)
        share, least = BOUNDS[kind]
        median, an_hour = float(np.median(values)), slope(at, values)
        grown = an_hour * (at[-1] - at[0]) / 3_600
        bound = max(share * median, least)
        found.append(
            {
                "series": name,
                "median": round(median, 1),
                "most": round(float(values.max()), 1),
                "an hour": round(an_hour, 2),
                "in the measured time": round(grown, 2),
                "at most": round(bound, 1),
                "flat": bool(grown <= bound),
            }
        )
    return found


def plot(about: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> None:
    """Plot the series of each panel; the dotted line marks the end of the warm-up."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), layout="constrained")
    hours = [sample["s"] / 3_600 for sample in samples]
    for axes, (title, wanted) in zip(figure.subplots(2, 3).flat, PANELS.items(), strict=True):
        names = [
            n
            for n in samples[0]
            if (n in wanted if isinstance(wanted, tuple) else n.endswith(wanted))
        ]
        for name in names:
            label = name if isinstance(wanted, tuple) else name.removesuffix(wanted)
            axes.plot(hours, [sample.get(name, 0) for sample in samples], label=label, lw=1)
        axes.axvline(warm_from(about, samples) / 3_600, color="black", linestyle=":", lw=0.8)
        axes.set(title=title, xlabel="hours", ylim=(0, 1.5 * axes.get_ylim()[1]))
        axes.legend(fontsize="x-small", loc="upper left", ncols=2)  # above all lines
    save_picture("soak", figure)


def report(about: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> Report:
    """Return the table of all series, with counts of the requests made."""
    found, last = verdicts(about, samples), samples[-1]
    columns = tuple(found[0])
    rows = [
        tuple("yes" if v is True else "no" if v is False else v for v in one.values())
        for one in found
    ]
    counts = {name: last[name] for name in last if name.startswith("count ")}
    told = ", ".join(f"{n:,} {name.removeprefix('count ')}" for name, n in counts.items())
    every = max(1, len(samples) // 120)
    return Report(
        "soak",
        f"{last['s'] / 3_600:.1f} hours at half load",
        columns,
        rows,
        {"about": about, "verdicts": found, "counts": counts, "samples": samples[::every]},
        f"{about['rate']:.1f} requests a second, half of the {about['full_rate']:.1f} that this "
        f"machine does; records are kept for {about['kept_s']} s, garbage is collected as often. "
        f"In all: {told}. Growth is a line through what comes after the warm-up (Theil and Sen); "
        "memory is what a process has alone (USS) and all it has in memory (RSS). PSS is in the "
        "figures, and not judged: it grows when others end that had the same libraries.",
    )


def main() -> None:
    """Run the soak test, and report what has grown."""
    parser = arguments(__doc__, rounds=None)
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument(
        "--of", type=Path, help="evaluate the lines of this earlier run, without a new one"
    )
    args = parser.parse_args()
    file = args.of or RESULTS / "soak.jsonl"
    if args.of is None:
        RESULTS.mkdir(exist_ok=True)
        run(args.hours, file)
    about, *samples = [json.loads(line) for line in file.read_text().splitlines()]
    plot(about, samples)
    result = report(about, samples)
    result.finish(args.json)
    grows = [one["series"] for one in result.figures["verdicts"] if not one["flat"]]
    went_wrong = [name for name in result.figures["counts"] if "errors" in name]
    if grows or went_wrong:
        raise SystemExit(f"soak failed: {', '.join(grows + went_wrong)}")


if __name__ == "__main__":
    main()
