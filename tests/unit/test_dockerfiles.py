"""What the Dockerfiles say; that they build, and what comes of it, is for `make images-test`."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.at_once import at_once
from tests.compose import DOCKER
from tests.conftest import need

pytestmark = pytest.mark.slow

ROOT = DOCKER.parent
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
each = at_once("path", DOCKERFILES)


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path from the builder; the last line that fits says so."""
    answer = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.lstrip("!")
        if pattern and not line.startswith("#") and _fits(pattern, path):
            answer = not line.startswith("!")
    return answer


def _fits(pattern: str, path: str) -> bool:
    if pattern.startswith("**/"):
        return any(Path(part).match(pattern[3:]) for part in path.split("/"))
    return pattern in ("*", path) or path.startswith(pattern + "/")


def test_hadolint_finds_nothing() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    need(program is not None, "hadolint")
    files = [*DOCKERFILES, *(ROOT / "tests" / "images").glob("*.Dockerfile")]
    done = subprocess.run([str(program), *map(str, files)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@each
def test_an_image_is_built_in_stages_from_one_base_that_can_be_pinned(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"^ARG BASE=(.*)", text, re.M) == [
        "docker.io/library/python:3.11-slim-bookworm"
    ]
    stages = dict(re.findall(r"^FROM (\S+)(?: AS (\w+))?", text, re.M))
    assert "${BASE}" in stages
    assert set(stages) - {"${BASE}"} <= set(re.findall(r" AS (\w+)$", text, re.M))
    for line in re.findall(r"^RUN .*?(?<!\\)$", text, re.M | re.S):
        if "pip" in line and " install" in line and "--no-deps --prefix" not in line:
            assert "-c constraints.txt" in line, line


@each
def test_an_image_runs_as_nobody_in_particular_and_can_be_asked_and_told_to_stop(
    path: Path,
) -> None:
    last = path.read_text().rpartition("\nFROM ")[2]
    assert "\nUSER 10001:10001\n" in last
    assert "\nSTOPSIGNAL SIGTERM\n" in last
    assert re.search(r'^HEALTHCHECK .*\\\n  CMD \["crossmodal", "health"', last, re.M)
    assert '\nENTRYPOINT ["crossmodal"]\n' in last  # no shell that would keep the signal
    assert "pip" not in last, "built in another stage"


@each
def test_what_is_copied_is_let_through_and_there(path: Path) -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", path.read_text(), re.M)
    for source in " ".join(copied).split():
        assert (ROOT / source).exists()
        assert not ignored(source)


@at_once(
    "path",
    [
        ".git/config",
        "docker/.env",
        "docker/secrets/gateway-key",
        "runs/mine/vae.safetensors",
        "out/storage/x",
        ".venv/bin/python",
        "crossmodal/__pycache__/cli.cpython-311.pyc",
        "producer/gateway/__pycache__",
        "tests/conftest.py",
    ],
)
def test_nothing_else_reaches_a_builder(path: str) -> None:
    assert ignored(path)
    assert not ignored("crossmodal/bundles/scenes/MODEL_CARD.md")


def test_only_the_worker_has_torch() -> None:
    lines = {path.stem: path.read_text().splitlines() for path in DOCKERFILES}
    said = {
        name: "\n".join(line for line in some if not line.lstrip().startswith("#"))
        for name, some in lines.items()
    }
    assert "torch torchvision" in said["worker"]
    assert "[worker,heif,hf,jxl,otel]" in said["worker"]
    assert "[gateway,monitor,otel]" in said["producer"]
    assert not re.search(r"torch|\[[^]\n]*worker", said["producer"], re.I)


def test_images_are_tagged_with_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    named = re.compile(
        r"(?:VERSION=|VERSION:-|crossmodal-(?:producer|worker):|/(?:producer|worker)\n *newTag: )"
        r"(\d+\.\d+\.\d+)"
    )
    files = [ROOT / "docs" / "docker.md", *(ROOT / "docker").rglob("*")]
    found = {
        str(file.relative_to(ROOT)): set(named.findall(file.read_text()))
        for file in files
        if file.is_file()
    }
    assert {name for name, versions in found.items() if versions - {version}} == set()
    assert sum(map(bool, found.values())) > 5, "nothing was read"
