"""What Docker does by itself, and Podman leaves to systemd: run the health checks of containers."""

import subprocess
import threading
from types import TracebackType
from typing import Self

from tests.images.engine import Podman

EVERY_S = 2.0


class Probes:
    """While it is entered, every container is asked for its health, again and again."""

    def __init__(self, podman: Podman) -> None:
        self._podman = podman
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probes")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            for name in self._podman.run("ps", "--format={{.Names}}", check=False).split():
                subprocess.run(  # its result is the container's health
                    [*self._podman.command, "healthcheck", "run", name],
                    env=self._podman.environment,
                    timeout=60,
                    check=False,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
