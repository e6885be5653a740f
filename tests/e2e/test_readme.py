"""The README's commands, typed one after the other in a fresh copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossmodal.local.valkey import free_port, valkey_url
from crossmodal.processes import Child
from tests.console_blocks import Shell, commands_of, differences
from tests.waiting import until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = commands_of(README)
RUNS_THE_TESTS = re.compile(r"make test")
FAILS = re.compile(r"^error |[1-9] failed", re.MULTILINE)
STAYS = "make up"
SLOW = "still waiting for"  # is said once a minute or so, of a machine that is busy
HOME = "/home/you"
START_S = 120.0


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files that git knows, beside what is installed already."""
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in filter(None, names):
        target = tmp_path / "crossmodal" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    for name in ("pyproject.toml", "constraints.txt"):  # older than what is installed
        os.utime(tmp_path / "crossmodal" / name, (0, 0))
    (tmp_path / "crossmodal" / ".venv").symlink_to(sys.prefix)
    return tmp_path / "crossmodal"


@pytest.fixture
def env(tmp_path: Path, short_path: Path) -> dict[str, str]:
    """The reader's: a home of their own, ports that nobody else has, and no make around it."""
    return {
        "MAKEFLAGS": "",
        "MAKELEVEL": "0",
        "HOME": str(tmp_path),
        "XDG_DATA_HOME": "",
        "XDG_RUNTIME_DIR": str(short_path),
        "CELERY_BROKER_URL": valkey_url(free_port()),
        "CROSSMODAL_GATEWAY_PORT": str(free_port()),
        "FLOWER_PORT": str(free_port()),
    }


@pytest.fixture
def up(clone: Path, env: dict[str, str], tmp_path: Path) -> Iterator[list[str]]:
    """What `make up` prints until it is ready, in a terminal of its own."""
    log = tmp_path / "up.log"
    with log.open("wb") as output:
        argv = ["make", "-C", str(clone), "--no-print-directory", "up"]
        terminal = Child("up", argv, env, output)
        terminal.start()
    try:
        until(lambda: b"try  crossmodal" in log.read_bytes() or not terminal.is_alive, START_S)
        lines = log.read_text().splitlines()
        yield [line for line in lines if not line.startswith(SLOW)]
    finally:
        terminal.stop(60)


def test_each_command_prints_what_the_page_says(
    clone: Path, env: dict[str, str], up: list[str], tmp_path: Path
) -> None:
    """All of them, but for the tests, which would run this one."""
    wrong: list[str] = []
    with Shell(clone, env) as shell:
        for command in COMMANDS:
            if RUNS_THE_TESTS.match(command.typed):
                continue
            status, printed = (0, up) if command.typed == STAYS else shell.run(command.typed)
            printed = [line.replace(str(tmp_path), HOME) for line in printed]
            if command.typed == STAYS:  # in the order in which things are ready
                printed, command.printed = sorted(printed), sorted(command.printed)
            missing = differences(command.printed, printed)
            may_fail = FAILS.search("\n".join(command.printed)) is not None
            if missing or (status != 0 and not may_fail):
                wrong.append(f"$ {command.typed} (status {status})\n  " + "\n  ".join(missing))
    assert not wrong, "\n".join(wrong)


def test_the_tests_are_targets() -> None:
    targets = {c.typed.split()[1] for c in COMMANDS if RUNS_THE_TESTS.match(c.typed)}
    assert targets
    done = subprocess.run(["make", "-n", *targets], cwd=ROOT, env=os.environ, check=False)
    assert done.returncode == 0
