"""Units for machines without containers: systemd accepts them, and they match what they start."""

import re
import shutil
import stat
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

from crossmodal.cli import commands, load
from crossmodal.console import USAGE
from crossmodal.settings import Settings
from tests.at_once import at_once
from tests.conftest import need
from tests.unit.test_kubernetes import known_variables
from worker.supervisor import COLD_STOP_S, HOST_STOP_S, make_folder

pytestmark = pytest.mark.slow

SYSTEMD = Path(__file__).parents[2] / "docker" / "systemd"
UNITS = sorted(path.name for path in SYSTEMD.glob("*.service"))
SUPERVISORS = [name for name in UNITS if "worker" in name]
HAVE_A_FOLDER = [*SUPERVISORS, "crossmodal-background.service"]
MOST_EXPOSED = 17  # tenths, as `systemd-analyze security` counts; 100 is a unit that says nothing
# What Python reads, and CUDA.
FOREIGN = {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "CUDA_VISIBLE_DEVICES"}

Unit = dict[str, list[str]]


def unit(name: str) -> Unit:
    """A unit's `[Service]`, each key with all of its values."""
    found: Unit = {}
    section = (SYSTEMD / name).read_text().partition("[Service]\n")[2].partition("\n[")[0]
    for key, value in re.findall(r"^(\w+)=(.*)$", section, re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


def command(name: str) -> list[str]:
    [line] = unit(name)["ExecStart"]
    program, *args = line.split()
    assert program == "/opt/crossmodal/bin/crossmodal"
    return args


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root folder with the units installed as docs/systemd.md says, and a program to start."""
    need(shutil.which("systemd-analyze") is not None, "systemd-analyze")
    installed = tmp_path / "etc" / "systemd" / "system"
    installed.mkdir(parents=True)
    for path in [*SYSTEMD.glob("*.service"), *SYSTEMD.glob("*.timer")]:
        shutil.copy(path, installed)
    program = tmp_path / "opt" / "crossmodal" / "bin" / "crossmodal"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    shutil.copytree("/usr/lib/systemd/system", tmp_path / "usr/lib/systemd/system", symlinks=True)
    return tmp_path


def analyze(verb: str, root: Path, *args: str) -> "subprocess.CompletedProcess[str]":
    line = ["systemd-analyze", verb, f"--root={root}", *args]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


def started(name: str) -> str:
    """A template as one of its instances."""
    return name.replace("@.", "@1.")


def test_systemd_has_nothing_to_say_against_the_units(root: Path) -> None:
    names = [started(name) for name in [*UNITS, "crossmodal-gc.timer"]]
    done = analyze("verify", root, *names)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_manuals_unit_loads_nvidias_module_before_workers_start(root: Path) -> None:
    manual = (SYSTEMD.parents[1] / "docs" / "systemd.md").read_text()
    [text] = re.findall(r"```ini\n(.*?)```", manual, re.DOTALL)
    (root / "etc/systemd/system/nvidia-uvm.service").write_text(text)
    program = root / "usr" / "bin" / "nvidia-modprobe"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    done = analyze("verify", root, "nvidia-uvm.service")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    [before] = re.findall(r"^Before=(.*)$", text, re.MULTILINE)
    workers = {name for name in UNITS if "worker" in name}
    assert {re.sub(r"@\d+", "@", name) for name in before.split()} == workers


def test_systemd_would_say_something_against_a_wrong_unit(root: Path) -> None:
    path = root / "etc/systemd/system/crossmodal-gateway.service"
    path.write_text(path.read_text().replace("KillMode=mixed", "KillMood=mixed"))
    assert "KillMood" in analyze("verify", root, "crossmodal-gateway.service").stderr


@at_once("name", UNITS)
def test_a_unit_may_do_little(root: Path, name: str) -> None:
    done = analyze("security", root, "--offline=true", f"--threshold={MOST_EXPOSED}", started(name))
    assert done.returncode == 0, done.stdout[-400:]


@at_once("name", UNITS)
def test_a_unit_starts_a_command_of_ours(name: str) -> None:
    subcommand, *args = command(name)
    assert subcommand in commands()
    load(subcommand).make_context(subcommand, args).close()


@at_once("name", SUPERVISORS)
def test_a_stop_may_take_longer_than_a_drain(name: str) -> None:
    found = unit(name)
    drain_s = Settings.model_fields["drain_s"].default
    assert int(found["TimeoutStopSec"][0]) > drain_s + COLD_STOP_S + HOST_STOP_S + 5
    assert found["KillMode"] == ["mixed"]
    assert found["KillSignal"] == ["SIGTERM"]


@at_once("name", SUPERVISORS)
def test_one_process_that_the_kernel_kills_does_not_end_the_unit(name: str) -> None:
    assert unit(name)["OOMPolicy"] == ["continue"]


@at_once("name", [name for name in UNITS if name != "crossmodal-gc.service"])
def test_a_unit_is_started_again_unless_its_settings_are_wrong(name: str) -> None:
    assert unit(name)["Restart"] == ["always"]
    assert unit(name)["RestartPreventExitStatus"] == [str(USAGE)]


@at_once("name", UNITS)
def test_variables_of_a_unit_are_settings_and_none_is_secret(name: str) -> None:
    found = unit(name)
    assigned = dict(pair.split("=", 1) for line in found["Environment"] for pair in line.split())
    assert assigned.keys() <= known_variables() | FOREIGN
    assert found["EnvironmentFile"] == ["/etc/crossmodal/crossmodal.env"]
    assert not {"CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"} & assigned.keys()


def test_the_example_names_settings_and_gives_no_secret_a_value() -> None:
    example = (SYSTEMD / "crossmodal.env.example").read_text()
    pairs = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", example, re.MULTILINE))
    assert {key for key in pairs if not key.startswith("AWS_")} <= known_variables()
    assert float(pairs["CROSSMODAL_DRAIN_S"]) == Settings.model_fields["drain_s"].default
    for secret in ("CELERY_BROKER_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert pairs[secret] == ""


@at_once("name", HAVE_A_FOLDER)
def test_the_run_folder_is_made_by_systemd_and_accepted_by_the_supervisor(
    short_path: Path, name: str
) -> None:
    found = unit(name)
    [folder] = found["RuntimeDirectory"]
    assert f"CROSSMODAL_RUN_DIR=/run/{folder}" in found["Environment"]
    assert found["RuntimeDirectoryMode"] == ["0700"]
    here = short_path / folder.replace("%i", "1")
    here.mkdir(parents=True, mode=0o755)
    here.chmod(0o700)
    assert stat.S_IMODE(make_folder(here).stat().st_mode) == 0o700


def test_units_share_no_run_folder() -> None:
    """systemd removes a unit's folder when the unit stops."""
    folders = [unit(name)["RuntimeDirectory"][0] for name in HAVE_A_FOLDER]
    assert len(set(folders)) == len(folders)


def test_a_gpus_unit_sees_this_gpu_alone() -> None:
    found = unit("crossmodal-worker@.service")
    assert "CUDA_VISIBLE_DEVICES=%i" in found["Environment"]
    assert command("crossmodal-worker@.service")[1:] == ["--devices", "cuda:0"]
    conflicts = (SYSTEMD / "crossmodal-worker@.service").read_text()
    assert "\nConflicts=crossmodal-worker.service\n" in conflicts


def test_the_two_worker_units_differ_in_nothing_else() -> None:
    one, other = (
        unit(name) for name in ("crossmodal-worker.service", "crossmodal-worker@.service")
    )
    own = {"Environment", "RuntimeDirectory", "ExecStart"}
    assert {k: v for k, v in one.items() if k not in own} == {
        k: v for k, v in other.items() if k not in own
    }


def test_the_timer_is_of_the_collection() -> None:
    parser = RawConfigParser()
    parser.read(SYSTEMD / "crossmodal-gc.timer")
    assert parser["Timer"]["Persistent"] == "yes"
    need(shutil.which("systemd-analyze") is not None, "systemd-analyze")
    said = ["systemd-analyze", "calendar", parser["Timer"]["OnCalendar"]]
    assert subprocess.run(said, capture_output=True, check=False).returncode == 0
