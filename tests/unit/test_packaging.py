"""What a wheel and an sdist hold, read from what `python -m build` made of this tree."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from crossmodal.networks.bundle import open_bundle

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACKAGES = ("crossmodal", "producer", "worker")
BESIDE = ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "constraints.txt", "SECURITY.md")
READ_AT_RUN_TIME = (
    "crossmodal/bundles/scenes/bundle.json",
    "crossmodal/jobs/scripts/common.lua",
    "crossmodal/jobs/scripts/submit.lua",
    "crossmodal/local/flowerconfig.py",
    "producer/gateway/page/index.html",
    "producer/gateway/page/base.css",
    "producer/gateway/page/page.js",
)
HEAVY = ("torch", "numpy", "opencv", "pillow", "gensim", "fastapi", "flower")


def files_of_packages() -> set[str]:
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*"))
    return {str(p.relative_to(ROOT)) for p in found if p.is_file() and "__pycache__" not in p.parts}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and an sdist, built of a copy: a build writes into its tree."""
    folder = tmp_path_factory.mktemp("build")
    tree = folder / "tree"
    tree.mkdir()
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BESIDE:
        shutil.copy(ROOT / name, tree)
    (tree / "tests").mkdir()
    (tree / "tests" / "test_stray.py").touch()  # which setuptools would take along by itself
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(tree)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Iterator[zipfile.ZipFile]:
    [path] = built.glob("*.whl")
    with zipfile.ZipFile(path) as file:
        yield file


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    [name] = [n for n in wheel.namelist() if n.endswith(".dist-info/METADATA")]
    return Parser().parsestr(wheel.read(name).decode())


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as pip unpacks it, alone in a folder."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--no-compile",
            "--target",
            str(folder),
            *map(str, built.glob("*.whl")),
        ],
        check=True,
        capture_output=True,
    )
    return folder


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(
    wheel: zipfile.ZipFile,
) -> None:
    names = set(wheel.namelist())
    about = {name for name in names if ".dist-info/" in name}
    assert names - about == files_of_packages()
    assert set(READ_AT_RUN_TIME) <= names
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert {name.partition("/")[2] for name in about} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
        "top_level.txt",
    }


def test_nothing_stray_lies_in_the_packages() -> None:
    kinds = {Path(name).suffix for name in files_of_packages()}
    assert kinds == {
        ".bin",
        ".css",
        ".html",
        ".js",
        ".json",
        ".lua",
        ".md",
        ".png",
        ".py",
        ".safetensors",
        ".svg",
        ".typed",
    }


def test_the_wheel_says_what_it_is(metadata: Message, wheel: zipfile.ZipFile) -> None:
    assert metadata["Name"] == "crossmodal-jobs"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "# crossmodal" in metadata.get_payload()
    [entry_points] = [n for n in wheel.namelist() if n.endswith("entry_points.txt")]
    assert b"crossmodal = crossmodal.cli:main" in wheel.read(entry_points)
    [kind] = [n for n in wheel.namelist() if n.endswith(".dist-info/WHEEL")]
    assert b"Tag: py3-none-any" in wheel.read(kind)


def test_an_app_that_submits_installs_nothing_heavy(metadata: Message) -> None:
    needed = metadata.get_all("Requires-Dist", [])
    always = [line for line in needed if "extra ==" not in line]
    assert not [line for line in always if line.startswith(HEAVY)]
    assert not [line for line in needed if "@" in line]  # an address that no constraint pins
    assert {"all", "gateway", "worker"} <= set(metadata.get_all("Provides-Extra", []))


def test_everything_that_the_wheel_may_bring_is_pinned(metadata: Message) -> None:
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {canonical(line.partition("==")[0]) for line in pins if "==" in line}
    for line in metadata.get_all("Requires-Dist", []):
        name = canonical(line.partition(";")[0].partition("[")[0].rstrip())
        assert name in pinned | {"crossmodal-jobs"}, line


def canonical(requirement: str) -> str:
    for sign in "<>=!~ ":
        requirement = requirement.partition(sign)[0]
    return requirement.lower().replace("_", "-").replace(".", "-")


def test_the_sdist_holds_what_a_wheel_is_made_of(built: Path) -> None:
    [path] = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {n.partition("/")[2] for n in archive.getnames() if not n.endswith("/")}
    assert files_of_packages() | set(BESIDE) <= names
    assert not [n for n in names if n.startswith(("tests", "benchmarks", "docker", "docs"))]


def test_what_was_installed_runs_without_the_tree(installed: Path, tmp_path: Path) -> None:
    program = (
        "import json; import crossmodal, producer; "
        "from crossmodal.jobs.scripts.loader import script; "
        "from producer.gateway.app import PAGE; from crossmodal.local import flowerconfig as f; "
        "print(json.dumps([crossmodal.__file__, producer.__file__, f.__file__, str(PAGE), "
        "script('submit')[:2], (PAGE / 'index.html').read_text()[:9]]))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    *places, lua, page = json.loads(done.stdout)
    assert all(place.startswith(str(installed)) for place in places)
    assert (lua, page.lower()) == ("--", "<!doctype")
    assert open_bundle(installed / "crossmodal" / "bundles" / "scenes").name
