"""Environments of their own for programs of others, made by name once a machine."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

INSTALL_S = 900


def python_with(*packages: str) -> Path:
    """A Python that has these packages; a test is skipped where they cannot be had."""
    folder = _folder("python", packages)
    with _locked(folder):
        if not (folder / "done").exists():
            shutil.rmtree(folder / "env", ignore_errors=True)
            _run(packages, [sys.executable, "-m", "venv", folder / "env"])
            _run(packages, [folder / "env/bin/python", "-m", "pip", "install", "-q", *packages])
            (folder / "done").touch()
    return folder / "env/bin/python"


def node_with(*packages: str) -> Path:
    """A folder from which `node` finds these packages."""
    folder = _folder("node", packages)
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    with _locked(folder):
        if not (folder / "done").exists():
            _run(
                packages,
                ["npm", "install", "--prefix", folder, "--no-audit", "--no-fund", *packages],
            )
            (folder / "done").touch()
    return folder


def script_for_node(script: Path, folder: Path, *packages: str) -> Path:
    """A copy of a script in `folder`, from where `node` finds these packages and what it shares."""
    (folder / "node_modules").symlink_to(node_with(*packages) / "node_modules")
    shutil.copy(script.parent / "submitted.mjs", folder)
    return Path(shutil.copy(script, folder))


def _folder(kind: str, packages: tuple[str, ...]) -> Path:
    digest = hashlib.sha256(" ".join([sys.version, *packages]).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir(), f"crossmodal-clients-{os.getuid()}", f"{kind}-{digest}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time makes it; the others wait."""
    with (folder / "lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(packages: tuple[str, ...], argv: list[str | Path]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    if done.returncode:
        pytest.skip(f"{' '.join(packages)} cannot be had: {done.stderr[-300:]}")
