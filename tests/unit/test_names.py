"""Our names beside other people's: files that are called as our packages are, and extras."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import crossmodal
import producer
from crossmodal import cli, extras, shadowing
from crossmodal.errors import PackageShadowed
from crossmodal.processes import python_module
from worker.app import app

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("crossmodal", "producer", "worker")
# What another project may have set in the environment that it starts us from.
ANOTHERS = {
    "APP": "celery",
    "CELERY_CONFIG_MODULE": "celeryconfig",
    "CELERY_LOADER": "celeryconfig:Loader",
    "DJANGO_SETTINGS_MODULE": "celeryconfig",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder of somebody else's, whose modules cannot be taken for ours unnoticed."""
    for name in ("worker", "producer", "celery", "celeryconfig"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('this is their {name}')\n")
    return tmp_path


def run(folder: Path, *argv: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        argv, cwd=folder, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )


def main(monkeypatch: pytest.MonkeyPatch, *argv: str) -> object:
    """The exit status of the command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["crossmodal", *argv])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.fixture
def found(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, first on this process's path as by PYTHONPATH, with none of the names loaded."""
    for name in ("worker", "producer", "celery"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(project)
    return project


@pytest.mark.parametrize("module", ["crossmodal.cli", "worker.celery"])
def test_a_process_of_ours_is_ours_in_a_folder_with_such_files(project: Path, module: str) -> None:
    done = run(project, *python_module(module, "--help"), **ANOTHERS)
    assert (done.returncode, "their" in done.stdout + done.stderr) == (0, False), done.stderr


def test_celery_takes_neither_modules_nor_settings_of_the_folder_it_runs_in(project: Path) -> None:
    done = run(project, *python_module("worker.celery", "report"), **ANOTHERS)
    assert (done.returncode, "their" in done.stdout + done.stderr) == (0, False), done.stderr
    assert "task_acks_late: True" in done.stdout


def test_no_fixup_of_celery_puts_the_working_directory_on_the_path() -> None:
    assert not app.fixups  # that for Django does


def test_every_python_that_we_start_is_started_in_one_way() -> None:
    sources = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    starters = [p for p in sources if re.search(r"\bsys\.executable\b", p.read_text())]
    assert starters == [ROOT / "crossmodal" / "processes.py"]
    assert python_module("worker.host", "--help")[1:] == ["-P", "-m", "worker.host", "--help"]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("txt2img", "producer"),
        ("gateway", "producer"),
        ("worker", "worker"),
        ("background", "producer"),
        ("up", "producer"),
        ("demo", "producer"),
    ],
)
def test_a_command_says_which_file_it_would_run_in_the_place_of_ours(
    found: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    name: str,
) -> None:
    assert main(monkeypatch, command) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("error package_shadowed ")
    assert f"{found / name}.py" in said.replace(" ", "")


def test_what_a_command_does_not_need_is_no_matter(found: Path) -> None:
    (found / "producer.py").unlink()
    shadowing.check_not_shadowed("producer")
    with pytest.raises(PackageShadowed, match=r"worker\.py"):
        shadowing.check_not_shadowed("producer", "worker")


def test_a_celery_of_somebody_else_is_found_out(found: Path) -> None:
    with pytest.raises(PackageShadowed, match=r"celery\.py"):
        shadowing.check_not_shadowed("celery")
    (found / "celery.py").unlink()
    shadowing.check_not_shadowed("celery")


def test_a_package_of_somebody_else_is_found_out_too(found: Path) -> None:
    (found / "producer.py").unlink()
    (found / "producer").mkdir()
    shadowing.check_not_shadowed("producer")  # a mere folder comes after every package
    (found / "producer" / "__init__.py").touch()
    with pytest.raises(PackageShadowed, match="producer/__init__"):
        shadowing.check_not_shadowed("producer")


def test_importing_crossmodal_beside_another_producer_says_so(project: Path) -> None:
    done = run(project, sys.executable, "-c", "import crossmodal")
    *_, last = done.stderr.splitlines()
    assert done.returncode == 1
    assert last.startswith("crossmodal.errors.PackageShadowed: ")
    assert str(project / "producer.py") in last


@pytest.mark.parametrize("module", ["crossmodal", "crossmodal.cli"])
def test_the_command_as_a_module_says_so_without_a_traceback(project: Path, module: str) -> None:
    done = run(project, sys.executable, "-m", module, "queue")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert done.stderr.startswith("error package_shadowed ")


def test_an_app_may_have_a_worker_and_a_celery_of_its_own(project: Path) -> None:
    (project / "producer.py").unlink()
    done = run(project, sys.executable, "-c", "from crossmodal import Client; print(Client)")
    assert done.stdout == "<class 'producer.client.Client'>\n", done.stderr


def test_crossmodal_has_the_names_that_the_producer_exports() -> None:
    assert crossmodal.__all__ == producer.__all__
    assert all(getattr(crossmodal, name) is getattr(producer, name) for name in producer.__all__)
    assert [n for n in dir(crossmodal) if not n.startswith("_")] == producer.__all__
    assert "__doc__" in dir(crossmodal)
    with pytest.raises(AttributeError, match="has no attribute 'Clientt'"):
        crossmodal.Clientt  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.slow
def test_type_checkers_in_another_folder_know_the_names(tmp_path: Path) -> None:
    script = tmp_path / "app.py"
    script.write_text('from crossmodal import Client\nreveal_type(Client().txt2img("x"))\n')
    done = run(tmp_path, sys.executable, "-P", "-m", "mypy", "--strict", str(script))
    assert 'Revealed type is "producer.handle.JobHandle"' in done.stdout
    assert "Success" in done.stdout


@pytest.mark.parametrize(("command", "extra"), cli.EXTRAS.items())
def test_a_command_says_which_extra_is_missing_before_it_starts_anything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, extra: str
) -> None:
    module = extras.MODULES[extra][0]
    monkeypatch.setitem(sys.modules, module, None)
    assert main(monkeypatch, command) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said == (
        f"error extra_missing crossmodal {command} needs {module}, which is not installed: "
        f"pip install 'crossmodal-jobs[{extra}]'"
    )


def test_help_needs_no_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(monkeypatch, "up", "--help") == 0
    assert "--devices" in capsys.readouterr().out


def test_the_modules_of_extras_are_those_of_the_distributions_that_they_bring() -> None:
    owners = packages_distributions()
    for extra, modules in extras.MODULES.items():
        found = {owner for module in modules for owner in owners[module]}
        assert {owner.lower().replace("_", "-") for owner in found} == brings(extra)


def brings(extra: str) -> set[str]:
    """The distributions that pyproject.toml names for an extra, those of its own extras too."""
    found: set[str] = set()
    for line in PROJECT["optional-dependencies"][extra]:
        ours = re.fullmatch(rf"{PROJECT['name']}\[(\w+)\]", line)
        found |= brings(ours[1]) if ours else {re.split(r"[\[<>=]", line)[0].lower()}
    return found


def test_every_extra_that_a_message_names_exists() -> None:
    assert PROJECT["name"] == extras.DISTRIBUTION
    texts = [path.read_text() for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    named = {extra for text in texts for extra in re.findall(r"""remedy\(["'](\w+)["']\)""", text)}
    assert {"aws", "bert", "embedded", "otel"} <= named <= PROJECT["optional-dependencies"].keys()


def test_nobody_is_told_to_install_what_belongs_to_somebody_else() -> None:
    told = re.compile(r"""pip install[^\n]*['" ]crossmodal(?!-jobs)[\['" ]|['`"]crossmodal\[\w""")
    folders = [ROOT / name for name in (*PACKAGES, "docs", "docker")]
    texts = [
        p for folder in folders for p in folder.rglob("*") if p.suffix in (".md", ".py", ".yaml")
    ]
    assert not [str(path) for path in texts if told.search(path.read_text())]
