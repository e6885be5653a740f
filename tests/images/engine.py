"""Podman with storage and settings of its own: builds the images and runs them as Docker would."""

import ast
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BUILD_S = 3_600

# Limits that a machine itself has, so that containers can be started where nobody may raise them.
CONF = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""


@dataclass(frozen=True)
class Podman:
    """One folder holds all that it makes."""

    folder: Path

    @cached_property
    def environment(self) -> dict[str, str]:
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        conf = self.folder / "containers.conf"
        conf.write_text(CONF.format(folder=self.folder))
        return os.environ | {
            "CONTAINERS_CONF": str(conf),
            "TMPDIR": str(self.folder / "tmp"),
            "DISABLE_HC_SYSTEMD": "true",  # `tests.images.probes` is the timer
        }

    @property
    def command(self) -> list[str]:
        return [
            "podman",
            f"--root={self.folder / 'storage'}",
            f"--runroot={self.folder / 'runroot'}",
            "--storage-driver=overlay",
        ]

    def run(self, *arguments: str, timeout_s: float = 120, check: bool = True) -> str:
        """What a command prints."""
        done = subprocess.run(
            [*self.command, *arguments],
            env=self.environment,
            timeout=timeout_s,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"podman {' '.join(arguments)} ended with {done.returncode}")
        return done.stdout

    def inspect(self, name: str) -> Any:
        """All that is known of an image or a container."""
        [found] = json.loads(self.run("inspect", name))
        return found

    def build(self, dockerfile: Path, image: str, context: Path, *options: str) -> None:
        """Build an image; a file beside its log says how it went."""
        # Docker's format keeps HEALTHCHECK. Only pip's settings come from this machine, and they
        # are mounted: nothing of them stays in the image.
        build = ["build", "--format=docker", "--isolation=chroot", "--network=host"]
        log = self.folder / f"{image.rpartition('/')[2].partition(':')[0]}.log"
        with log.open("wb") as output:
            done = subprocess.run(
                [
                    *self.command,
                    *build,
                    *options,
                    *self._pip_mounts(),
                    f"--file={dockerfile}",
                    f"--tag={image}",
                    str(context),
                ],
                env=self.environment,
                stdout=output,
                stderr=output,
                timeout=BUILD_S,
                check=False,
            )
        if done.returncode:
            sys.stderr.write(log.read_text()[-4_000:])
            raise RuntimeError(f"{dockerfile} could not be built: see {log}")

    def remove_all(self) -> None:
        """Leave nothing of it on the machine."""
        self.run("rm", "--all", "--force", "--time=0", check=False)
        self.run("network", "prune", "--force", check=False)
        mounts = self.folder / "storage" / "overlay"  # also those of a build that was cut off
        subprocess.run(["umount", "--recursive", mounts], stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(self.folder)

    def _pip_mounts(self) -> list[str]:
        settings, places = pip_settings()
        path = self.folder / "pip.conf"
        path.write_text(settings)
        return [f"--volume={path}:/etc/pip.conf:ro", *(f"--volume={p}:{p}:ro" for p in places)]


def pip_settings() -> tuple[str, list[Path]]:
    """This machine's settings of pip as one file, and the local folders that they name."""
    said = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    values: dict[str, str] = {}
    places = set[Path]()
    for line in said.stdout.splitlines():
        name, _, value = line.partition("=")
        words = str(ast.literal_eval(value)).split()
        if name.startswith(":env:"):  # goes before files
            values[name.rpartition(".")[2]] = "\n    ".join(words)
        else:
            values.setdefault(name.rpartition(".")[2], "\n    ".join(words))
        for word in words:
            path = Path(urlsplit(word).path if word.startswith("file://") else word)
            if path.is_absolute() and path.exists():
                places.add(path.parent)
    lines = [f"{name} = {value}\n" for name, value in values.items()]
    return "[global]\n" + "".join(lines), sorted(places)
