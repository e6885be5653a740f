"""The compose file, brought up on Podman: one command of Compose after another, as an operator."""

import re
import secrets
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossmodal.local.valkey import free_port
from crossmodal.processes import Child, wait_until
from tests.compose import DOCKER, compose_command
from tests.images.engine import Podman

SECRETS = (
    "REDIS_PASSWORD",
    "S3_ACCESS_KEY",
    "S3_SECRET_KEY",
    "FLOWER_USER",
    "FLOWER_PASSWORD",
    "GRAFANA_PASSWORD",
)
PORTS = ("GATEWAY_PORT", "FLOWER_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")
MANUAL = DOCKER.parent / "docs" / "docker.md"
NO_IMAGE_HERE = {"grafana"}


@dataclass
class Stack:
    """A copy of docker/ with an .env of its own, and the service that Compose talks to."""

    podman: Podman
    images: dict[str, str]
    api: Child | None = None
    env: dict[str, str] = field(default_factory=dict)
    app_key: str = ""

    @property
    def folder(self) -> Path:
        return self.podman.folder / "docker"

    @property
    def _environment(self) -> dict[str, str]:
        return self.podman.environment | {"DOCKER_HOST": f"unix://{self._socket}"}

    @property
    def _socket(self) -> Path:
        return self.podman.folder / "podman.sock"

    def start(self) -> None:
        """Write the .env as its example asks, and start what stands for Docker's engine."""
        shutil.rmtree(self.folder, ignore_errors=True)  # of an earlier run
        shutil.copytree(DOCKER, self.folder, ignore=shutil.ignore_patterns(".env", "secrets"))
        self.env = {name: secrets.token_hex(24) for name in SECRETS} | self.images
        self.env |= {name: str(free_port()) for name in PORTS}
        self.env["PUBLIC_URL"] = self.url("GATEWAY_PORT")
        text = "".join(f"{name}={value}\n" for name, value in self.env.items())
        (self.folder / ".env").write_text(text)
        self.api = Child(
            "podman",
            [*self.podman.command, "system", "service", "--time=0", f"unix://{self._socket}"],
            env=self.podman.environment,
            output=(self.podman.folder / "api.log").open("ab"),
        )
        self.api.start()
        assert wait_until(self._socket.is_socket, 30), "podman's service did not start"

    def url(self, port: str) -> str:
        """Where a published port is."""
        return f"http://127.0.0.1:{self.env[port]}"

    def compose(self, *arguments: str, timeout_s: float = 300) -> str:
        """What a command of Compose prints on standard output."""
        command = compose_command()
        assert command is not None
        done = subprocess.run(
            [*command, "-f", str(self.folder / "compose.yaml"), *arguments],
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"compose {' '.join(arguments)} ended with {done.returncode}")
        return done.stdout

    def shell(self, title: str, **env: str) -> str:
        """What a block of docs/docker.md prints, run as it stands there."""
        command = compose_command()
        assert command is not None
        [block] = re.findall(rf"<!-- {title} -->\n```sh\n(.*?)```", MANUAL.read_text(), re.S)
        script = block.replace("http://127.0.0.1:8000", self.url("GATEWAY_PORT"))
        prelude = f'set -euo pipefail; docker() {{ shift; {" ".join(command)} "$@"; }}\n'
        done = subprocess.run(
            ["bash", "-c", prelude + script],
            cwd=self.podman.folder,
            env=self._environment | env,
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{title}: {script} ended with {done.returncode}")
        return done.stdout

    def services(self) -> list[str]:
        """All that can run here."""
        return sorted(set(self.compose("config", "--services").split()) - NO_IMAGE_HERE)

    def container(self, service: str, number: int = 1) -> Any:
        """What Podman knows of a service's container."""
        return self.podman.inspect(f"crossmodal-{service}-{number}")

    def stop(self) -> None:
        """Take all away, volumes too."""
        self.compose("--profile", "*", "down", "--volumes", "--timeout", "20")
        if self.api is not None:
            self.api.stop(20)
