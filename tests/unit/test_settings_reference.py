"""The reference of settings is whole, true, and the same everywhere."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from crossmodal import settings_reference
from crossmodal.settings import Settings, load_settings
from crossmodal.settings_reference import FOREIGN, GROUPS, effective, meanings, reference, unknown
from tests.at_once import at_once

ROOT = Path(__file__).parents[2]
OURS = re.compile(r"\bCROSSMODAL_(?!TEST_)[A-Z0-9_]*[A-Z0-9]\b")  # only tests read the others
SOURCES = ("crossmodal", "producer", "worker")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NO_SETTINGS = {
    "CROSSMODAL_URL",
    "CROSSMODAL_KEY",  # of the example scripts in docs/examples
    "CROSSMODAL_VERSION",  # of the compose files: which image
}


def variables() -> set[str]:
    return {settings_reference.variable_of(name) for name in Settings.model_fields}


def test_the_page_is_what_the_settings_say() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    assert page == reference(), "crossmodal settings --markdown > docs/settings.md"


def test_every_setting_has_a_meaning_and_a_group() -> None:
    names = [name for group in GROUPS.values() for name in group]
    assert sorted(names) == sorted(Settings.model_fields), "sort it into GROUPS"
    assert set(meanings()) == set(names)


def test_what_the_ledger_goes_by_on_both_sides_is_the_same_for_everybody() -> None:
    [shared] = [names for group, names in GROUPS.items() if "the same for all processes" in group]
    assert {"max_batch", "retention_s", "max_attempts", "lease_s"} <= set(shared)


@at_once("page", PAGES)
def test_every_variable_that_a_page_names_exists(page: Path) -> None:
    said = set(OURS.findall(page.read_text()))
    assert not said - variables() - set(FOREIGN) - NO_SETTINGS


def test_every_variable_that_the_code_names_exists() -> None:
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*.py"):
            said = set(OURS.findall(path.read_text()))
            cut_off = {v for v in said if any(known.startswith(f"{v}_") for known in variables())}
            assert not said - cut_off - variables() - set(FOREIGN) - NO_SETTINGS, path


def test_what_is_in_force_is_told_with_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in variables():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://me:hunter2@queue:6379/0")
    monkeypatch.setenv("CROSSMODAL_SENTINEL_PASSWORD", "hunter2")
    monkeypatch.setenv("CROSSMODAL_MAX_BATCH", "4")
    rows = {row.variable: row for row in effective(load_settings())}
    assert set(rows) == variables()
    assert (rows["CROSSMODAL_MAX_BATCH"].value, rows["CROSSMODAL_MAX_BATCH"].source) == (
        "4",
        "environment",
    )
    assert rows["CELERY_BROKER_URL"].value == "redis://me:***@queue:6379/0"
    assert rows["CROSSMODAL_BULK_BATCH"].source == "default"
    assert "hunter2" not in str(rows)


def test_a_variable_that_is_no_setting_is_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSMODAL_MAX_BACTH", "4")
    monkeypatch.setenv("CROSSMODAL_GATEWAY_PORT", "8000")
    assert unknown() == ["CROSSMODAL_MAX_BACTH"]


def test_the_command_prints_the_same() -> None:
    env = {n: v for n, v in os.environ.items() if not n.startswith(("CROSSMODAL_", "CELERY_"))}
    done = subprocess.run(
        [sys.executable, "-m", "crossmodal.cli", "settings", "--json"],
        env=env | {"CROSSMODAL_LEASE_S": "30", "CROSSMODAL_X": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = {row["variable"]: row for row in json.loads(done.stdout)}
    assert rows["CROSSMODAL_LEASE_S"]["value"] == "30"
    assert "CROSSMODAL_X is set" in done.stderr
