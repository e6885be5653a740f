"""The project's metrics, and the checks of `promtool check metrics`, without promtool."""

import re
from collections.abc import Iterable
from pathlib import Path
from urllib.request import urlopen

from prometheus_client import Counter, Gauge, Histogram, Metric
from prometheus_client.parser import text_string_to_metric_families

import crossmodal.metrics
import producer.gateway.metrics
from producer import Client

NAME = re.compile(r"[a-z][a-z0-9_]*")
NO_BASE_UNITS = (
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "ms",
    "minutes",
    "hours",
    "days",
    "percent",
    "kilobytes",
    "megabytes",
    "gigabytes",
    "bits",
)
HISTOGRAM = ("bucket", "sum", "count")
RESERVED = ("_total", "_created", *(f"_{part}" for part in HISTOGRAM))


def scrape(port: int) -> str:
    """Return the metrics that a process on this machine serves to Prometheus."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read(), "utf-8")


def value(found: str | Iterable[Metric], name: str, **labels: str) -> float:
    """Return the sum of all series with this name and these labels."""
    families = text_string_to_metric_families(found) if isinstance(found, str) else found
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def problems_of(text: str) -> list[str]:
    """Return the faults of an exposition in the text format."""
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    found = [f"{name} comes twice" for name in sorted(set(names)) if names.count(name) > 1]
    counters = re.findall(r"^# TYPE (\S+) counter$", text, re.MULTILINE)  # the parser renames them
    found += [f"{c}: a counter, not a total" for c in counters if not c.endswith("_total")]
    for family in families:
        found += [f"{family.name}: {problem}" for problem in _problems_of(family)]
    return found


def _problems_of(family: Metric) -> list[str]:
    found = []
    if not family.documentation:
        found.append("no help")
    if not NAME.fullmatch(family.name):
        found.append("a name that is none")
    if family.type == "unknown":
        found.append("no type")
    if set(family.name.split("_")) & set(NO_BASE_UNITS):
        found.append("no base unit")
    if family.type != "counter" and family.name.endswith(RESERVED):
        found.append(f"a {family.type} with the name of something else")
    series = [(s.name, tuple(sorted(s.labels.items()))) for s in family.samples]
    found += [f"{one} comes twice" for one in sorted(set(series)) if series.count(one) > 1]
    return found


MANUAL = Path(__file__).parents[1] / "docs" / "metrics.md"
OURS = (crossmodal.metrics, producer.gateway.metrics)
Names = dict[str, frozenset[str]]


def documented() -> Names:
    """Return the metrics that the manual lists, with their labels."""
    rows = re.findall(r"^\| `(crossmodal_\w+)` \| (.*?) \|", MANUAL.read_text(), re.MULTILINE)
    return {name: frozenset(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def exported(client: Client) -> Names:
    """Return the metrics that the code exports, with their labels; the ledger must have jobs."""
    counted = {
        metric._name + ("_total" if isinstance(metric, Counter) else ""): metric._labelnames
        for module in OURS
        for metric in vars(module).values()
        if isinstance(metric, (Counter, Gauge, Histogram))
    }
    cluster = {
        sample.name: tuple(sample.labels)
        for family in producer.gateway.metrics.ClusterCollector(
            client.run(producer.gateway.metrics.figures(client.calls)),
            producer.gateway.metrics.Up(),
        ).collect()
        for sample in family.samples
    }
    return {name: frozenset(labels) for name, labels in (counted | cluster).items()}


def series_of(names: Names) -> Names:
    """Return the series for queries: each histogram is exported as three."""
    parts = {f"{name}_{part}": labels for name, labels in names.items() for part in HISTOGRAM}
    return names | parts
