"""Alerts that fire when they should and not otherwise; a dashboard that shows what there is."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from crossmodal import errors
from tests.at_once import at_once
from tests.conftest import need
from tests.exposition import MANUAL, documented, series_of

pytestmark = pytest.mark.slow

DOCKER = Path(__file__).parents[2] / "docker"
ALERTS = DOCKER / "prometheus" / "alerts.yml"
TESTS = sorted((DOCKER / "prometheus" / "tests").glob("*.yml"))
DASHBOARD = json.loads((DOCKER / "grafana" / "dashboards" / "crossmodal.json").read_text())
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
FROM_PROMETHEUS = frozenset({"instance", "job"})
METRIC = re.compile(r"\b(crossmodal_\w+)(?:\{(.*?)\})?")


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


RULES = {rule["alert"]: rule for group in loaded(ALERTS)["groups"] for rule in group["rules"]}


def promtool(*arguments: str) -> str:
    """What promtool says; fails the test unless it is content."""
    need(shutil.which("promtool") is not None, "promtool")
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> Iterator[str]:
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"]


def unknown_in(expression: str) -> list[str]:
    """Metrics of ours in a query that no code exports, and labels that they do not have."""
    known = series_of(documented())
    found = []
    for name, matchers in METRIC.findall(expression):
        labels = set(re.findall(r"(\w+)\s*[=!]", matchers or ""))
        if name not in known:
            found.append(name)
        elif wrong := labels - known[name] - FROM_PROMETHEUS:
            found.append(f"{name}: {wrong}")
    return found


# -- alerts -----------------------------------------------------------------------------


def test_prometheus_can_read_its_configuration_and_the_rules(tmp_path: Path) -> None:
    for name in ("prometheus.yml", "alerts.yml"):
        (tmp_path / name).write_text((DOCKER / "prometheus" / name).read_text())
    (tmp_path / "gateway-key").write_text("an operator's")
    said = promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert f"{len(RULES)} rules found" in said


@at_once("path", TESTS)
def test_an_alert_fires_when_it_should_and_not_otherwise(path: Path) -> None:
    asked = [
        check
        for test in loaded(path)["tests"]
        for check in test["alert_rule_test"]
        if check["alertname"] == path.stem
    ]
    assert any(check["exp_alerts"] for check in asked)
    assert any(not check["exp_alerts"] for check in asked)
    promtool("test", "rules", str(path))


def test_every_alert_has_a_test() -> None:
    assert {path.stem for path in TESTS} == set(RULES)


@at_once("name", RULES)
def test_an_alert_says_how_bad_it_is_and_what_to_do(name: str) -> None:
    rule = RULES[name]
    assert rule["for"]
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    assert rule["annotations"]["runbook_url"] == f"docs/metrics.md#{name.lower()}"


def test_every_alert_has_a_section_in_the_runbook() -> None:
    assert re.findall(r"^### (\w+)$", MANUAL.read_text(), re.MULTILINE) == list(RULES)


@at_once("name", RULES)
def test_an_alert_looks_at_metrics_that_there_are(name: str) -> None:
    expression = RULES[name]["expr"]
    assert "crossmodal_" in expression or "up{" in expression
    assert unknown_in(expression) == []


def test_the_alert_of_failing_jobs_leaves_out_what_only_senders_can_mend() -> None:
    [left_out] = re.findall(r'code!~"(.*?)"', RULES["CrossmodalJobsFailing"]["expr"])
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.code for kind in kinds if issubclass(kind, errors.CrossmodalError)}
    wanted = {code for code in codes if errors.is_callers_fault(code)}
    assert set(left_out.split("|")) == wanted, "see code!~ in docker/prometheus/alerts.yml"


# -- the dashboard ----------------------------------------------------------------------


def test_every_query_of_the_dashboard_is_promql(tmp_path: Path) -> None:
    rules = [
        {"record": f"query_{number}", "expr": filled_in(query)}
        for number, query in enumerate(queries())
    ]
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(path))


def filled_in(query: str) -> str:
    """A query as Grafana would send it."""
    filled = query.replace("$__rate_interval", "5m").replace("$task", "txt2img|img2txt")
    assert "$" not in filled
    return filled


def test_every_query_of_the_dashboard_asks_for_metrics_that_there_are() -> None:
    assert {query: unknown_in(query) for query in queries() if unknown_in(query)} == {}


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {name for query in queries() for name, _ in METRIC.findall(query)}
    for name in documented():
        assert shown & {name, f"{name}_bucket"}, name


def test_every_panel_asks_the_data_source_that_was_chosen() -> None:
    for panel in panels():
        assert [panel["datasource"], *(t["datasource"] for t in panel["targets"])] == [
            SOURCE for _ in range(1 + len(panel["targets"]))
        ], panel["title"]


def test_the_dashboard_lets_one_choose_data_source_and_task() -> None:
    source, task = DASHBOARD["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    assert (task["name"], task["type"], task["datasource"]) == ("task", "query", SOURCE)
    [metric] = re.findall(r"label_values\((\w+), task\)", task["query"]["query"])
    assert "task" in documented()[metric]


def test_panels_have_ids_of_their_own() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_grafana_is_told_where_data_and_dashboard_are() -> None:
    provisioning = DOCKER / "grafana" / "provisioning"
    [source] = loaded(provisioning / "datasources" / "prometheus.yaml")["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    [provider] = loaded(provisioning / "dashboards" / "crossmodal.yaml")["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"]
