"""Docker Compose, used without an engine to merge, check and fill in compose files."""

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

DOCKER = Path(__file__).parents[1] / "docker"


@cache
def compose_command() -> tuple[str, ...] | None:
    """Return the command of Compose (2.20 or newer, so none written in Python), or None."""
    for command in (("docker", "compose"), ("docker-compose",)):
        if shutil.which(command[0]) is None:
            continue
        said = subprocess.run(
            [*command, "version", "--short"], capture_output=True, text=True, check=False
        )
        if said.returncode == 0 and said.stdout.lstrip("v").startswith(tuple("23456789")):
            return command
    return None


def config(files: tuple[str, ...], env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run `docker compose config` on files in docker/, with only these variables."""
    command = compose_command()
    assert command is not None
    named = [part for name in files for part in ("-f", str(DOCKER / name))]
    options = ["--env-file", os.devnull, *named, "--profile", "*"]
    return subprocess.run(
        [*command, *options, "config", "--format", "json"],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def merged(files: tuple[str, ...], env: dict[str, str]) -> dict[str, Any]:
    """Return the merged, filled-in files. Fails the test if Compose refuses them."""
    done = config(files, env)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
