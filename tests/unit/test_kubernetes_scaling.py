"""How many workers a cluster is asked for: the query, by Prometheus itself, against our sum."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.at_once import at_once
from tests.conftest import need
from tests.exposition import documented, series_of
from tests.manifests import KUBERNETES, all_of, container, name_of, one
from worker.autoscale.policy import Load

pytestmark = pytest.mark.slow

AUTOSCALED = ["gpu", "external-redis", "hpa"]
# What docs/kubernetes.md says of two cores: jobs a second, and for how long the last may wait.
RATES = {"txt2img": 98.0, "img2txt": 72.0, "txt2img.bulk": 1.33, "img2txt.bulk": 1.33}
TARGETS_S = {"txt2img": 5.0, "img2txt": 5.0, "txt2img.bulk": 300.0, "img2txt.bulk": 300.0}


def query() -> str:
    [trigger] = [
        t
        for t in one("gpu", "ScaledObject", "crossmodal-worker")["spec"]["triggers"]
        if t["type"] == "prometheus"
    ]
    return str(trigger["metadata"]["query"])


def slots_of(queue: str) -> int:
    args = container("cpu", "worker")["args"]
    return int(args[args.index("--bulk-concurrency" if "bulk" in queue else "--concurrency") + 1])


def need_of(jobs: dict[str, tuple[int, int]]) -> float:
    """Workers for jobs that wait and run, by the arithmetic of `crossmodal autoscale`."""
    loads = [
        Load(
            queue,
            waiting,
            running,
            slots_of(queue) / RATES[queue],
            slots_of(queue),
            TARGETS_S[queue],
        )
        for queue, (waiting, running) in jobs.items()
    ]
    return sum(load.need for load in loads)


def asked(tmp_path: Path, series: dict[str, str], expected: float | None, at: str = "5m") -> None:
    """Have promtool answer the query over made-up series; fails the test on another answer."""
    answered(tmp_path, query(), series, {} if expected is None else {"{}": expected}, at)


def answered(
    tmp_path: Path,
    expression: str,
    series: dict[str, str],
    expected: dict[str, float],
    at: str = "5m",
) -> None:
    """The same of any query, whose answers are told by their labels."""
    need(shutil.which("promtool") is not None, "promtool")
    samples = [{"labels": labels, "value": 1} for labels in expected]
    if expected:
        [value] = set(expected.values())
        expression = f"abs(({expression}) - {value!r}) < bool 1e-9"
    test = {
        "rule_files": [],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": s, "values": v} for s, v in series.items()],
                "promql_expr_test": [{"expr": expression, "eval_time": at, "exp_samples": samples}],
            }
        ],
    }
    path = tmp_path / "query.yml"
    path.write_text(yaml.safe_dump(test))
    done = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def cluster(
    jobs: dict[str, tuple[int, int]], a_second: float = 0.0, gateways: int = 2
) -> dict[str, str]:
    """Series of gateways that see these jobs all the time, and this many submitted a second."""
    found = {}
    for gateway in range(gateways):
        of = f'instance="gateway-{gateway}"'
        found[f"crossmodal_broker_up{{{of}}}"] = "1x40"
        for queue in RATES:
            waiting, running = jobs.get(queue, (0, 0))
            found[f'crossmodal_queue_depth{{{of},queue="{queue}"}}'] = f"{waiting}x40"
            found[f'crossmodal_queue_running{{{of},queue="{queue}"}}'] = f"{running}x40"
            step = a_second * 15 if queue == "txt2img" else 0
            found[f'crossmodal_jobs_submitted_total{{{of},task="{queue}"}}'] = f"0+{step:g}x40"
    return found


@at_once(
    "jobs",
    [
        {},
        {"txt2img": (0, 1)},
        {"txt2img": (2_000, 12)},
        {"img2txt": (2_000, 0), "txt2img": (500, 3)},
        {"txt2img.bulk": (100, 2), "img2txt.bulk": (1_000, 0), "img2txt": (7, 7)},
    ],
)
def test_the_query_has_the_arithmetic_of_autoscale(
    tmp_path: Path, jobs: dict[str, tuple[int, int]]
) -> None:
    asked(tmp_path, cluster(jobs), need_of(jobs))


def test_workers_that_keep_up_are_kept(tmp_path: Path) -> None:
    """400 a second leave nothing waiting with four workers, and a queue with one."""
    asked(tmp_path, cluster({"txt2img": (0, 40)}, a_second=400), 400 / RATES["txt2img"])


def test_one_gateway_tells_what_many_do(tmp_path: Path) -> None:
    jobs = {"txt2img": (700, 12)}
    asked(tmp_path, cluster(jobs, gateways=1), need_of(jobs))


def test_nothing_is_said_while_redis_is_away(tmp_path: Path) -> None:
    """KEDA and the HPA then leave the number as it is: it is no reason to stop anybody."""
    series = cluster({"txt2img": (10, 2)}, a_second=100)
    away = {
        name: values.replace("x40", "x16") + " stale" if "broker_up" not in name else "1x16 0x20"
        for name, values in series.items()
    }
    asked(tmp_path, away, None)


def test_nothing_is_said_while_no_gateway_answers(tmp_path: Path) -> None:
    asked(tmp_path, {"up": "0x40"}, None)


def test_the_query_asks_for_metrics_that_there_are() -> None:
    known = series_of(documented())
    for name, label in re.findall(r"(crossmodal_\w+)\{(\w+)=", query()):
        assert label in known[name]
    assert set(re.findall(r"crossmodal_\w+", query())) <= set(known)


def of_the_manual(metric: str) -> str:
    """A query that docs/kubernetes.md tells to ask."""
    manual = (KUBERNETES.parents[1] / "docs" / "kubernetes.md").read_text()
    [found] = re.findall(rf"^ {{4}}(.*\b{metric}\b.*)$", manual, re.MULTILINE)
    return str(found)


def test_the_manual_tells_how_to_measure_the_jobs_a_second_of_a_worker(tmp_path: Path) -> None:
    series = {'up{job="crossmodal-worker",instance="off"}': "0x40"}
    for worker in ("one", "two"):
        of = f'job="crossmodal-worker",instance="{worker}"'
        series[f"up{{{of}}}"] = "1x40"
        for task, step in (("txt2img", 900), ("img2txt", 900)):
            series[f'crossmodal_items_total{{{of},task="{task}"}}'] = f"0+{step}x40"
    expected = dict.fromkeys(('{task="txt2img"}', '{task="img2txt"}'), 60.0)
    answered(tmp_path, of_the_manual("crossmodal_items_total"), series, expected)


def test_the_manual_tells_how_to_measure_the_length_of_a_bulk_message(tmp_path: Path) -> None:
    """A job in 15 s at each of two workers, which took 10 s and had waited for 7 of them."""
    series = {}
    for worker in ("one", "two"):
        of = f'{{instance="{worker}",task="txt2img.bulk"}}'
        for name, each_s in (("job", 10), ("queue_wait", 7)):
            series[f"crossmodal_{name}_seconds_sum{of}"] = f"0+{each_s}x40"
            series[f"crossmodal_{name}_seconds_count{of}"] = "0+1x40"
    found = of_the_manual("crossmodal_job_seconds_count")
    answered(tmp_path, found, series, {'{task="txt2img.bulk"}': 3.0})


@at_once("overlay", AUTOSCALED)
def test_whoever_scales_finds_its_target_and_is_the_only_one_to_say_how_many(overlay: str) -> None:
    [scaler] = all_of(overlay, "ScaledObject", "HorizontalPodAutoscaler")
    target = scaler["spec"]["scaleTargetRef"]
    worker = one(overlay, target.get("kind", "Deployment"), target["name"])
    assert "replicas" not in worker["spec"], name_of(worker)


def test_keda_starts_and_ends_the_last_worker_and_errs_on_no_answer() -> None:
    spec = one("gpu", "ScaledObject", "crossmodal-worker")["spec"]
    assert spec["minReplicaCount"] == 0
    prometheus, plain = spec["triggers"]
    assert prometheus["metadata"]["ignoreNullValues"] == "false"
    assert (prometheus["metadata"]["threshold"], prometheus["metricType"]) == ("1", "AverageValue")
    assert float(prometheus["metadata"]["activationThreshold"]) == 0
    assert float(plain["metadata"]["activationListLength"]) == 0
    assert spec["cooldownPeriod"] > 120  # the window in which arrivals are counted


def test_the_list_of_plain_messages_is_the_one_that_workers_serve() -> None:
    [_, plain] = one("gpu", "ScaledObject", "crossmodal-worker")["spec"]["triggers"]
    [settings] = [
        m["data"]
        for m in all_of("gpu", "ConfigMap")
        if m["metadata"]["name"].startswith("crossmodal-settings")
    ]
    assert plain["metadata"]["listName"] == settings["CROSSMODAL_PLAIN_QUEUE"]
    service = one("gpu", "Service", "crossmodal-redis")["metadata"]
    host = f"{service['name']}.{service['namespace']}.svc"
    assert plain["metadata"]["address"] == f"{host}:6379"
    one_worker = Load("celery", 0, 0, 24 / RATES["img2txt"], 24, TARGETS_S["img2txt"])
    assert float(plain["metadata"]["listLength"]) == pytest.approx(one_worker.jobs_per_worker)


@at_once("overlay", ["cpu", "hpa"])
def test_plain_messages_are_not_taken_where_nobody_watches_for_them(overlay: str) -> None:
    [settings] = [
        m["data"]
        for m in all_of(overlay, "ConfigMap")
        if m["metadata"]["name"].startswith("crossmodal-settings")
    ]
    assert settings["CROSSMODAL_PLAIN_QUEUE"] == ""


def test_the_hpa_asks_what_keda_asks() -> None:
    values: Any = yaml.safe_load(
        (KUBERNETES / "components" / "hpa" / "prometheus-adapter.values.yaml").read_text()
    )
    [rule] = values["rules"]["external"]
    assert rule["metricsQuery"] == query()
    [metric] = one("hpa", "HorizontalPodAutoscaler", "crossmodal-worker")["spec"]["metrics"]
    assert metric["external"]["metric"]["name"] == rule["name"]["as"]
    assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": "1"}
