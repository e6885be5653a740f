"""Queue, worker and Flower as one thing that starts, is ready, and stops."""

import os
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from crossmodal.errors import CrossmodalError
from crossmodal.extras import is_installed
from crossmodal.processes import Child, python_module, wait_until

READY_S = 120.0
FLOWER_STOP_S = 5.0
WEBHOOKS_STOP_S = 45.0  # a receiver may take 30 s
GATEWAY_STOP_S = 15.0
KILL_MARGIN_S = 30.0  # beyond a worker's own drain
WAYS_OUT = {  # where a process cannot start, most often because its port is another's
    "gateway": "if its port is taken, name another in CROSSMODAL_GATEWAY_PORT, or do without it "
    "(--no-gateway)",
    "flower": "if its port is taken, name another in FLOWER_PORT, or do without it (--no-flower)",
}


class StackFailed(CrossmodalError):
    """A process of the stack ended by itself, or was not ready in time."""

    code = "stack_failed"


class Stack:
    """Children that are started in order and stopped in reverse, each with its own patience."""

    def __init__(self, env: dict[str, str], log: IO[bytes] | None = None) -> None:
        self._env = env
        self._log = log
        self._children: list[tuple[Child, float]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.stop()

    def add(self, child: Child, stop_s: float) -> None:
        """Keep a child that runs already; it has `stop_s` to end when the stack stops."""
        self._children.append((child, stop_s))

    def start_worker(self, options: list[str], drain_s: float, ready_file: Path) -> Child:
        """Start a supervisor with its model hosts and Celery workers."""
        argv = _command("worker", "--ready-file", str(ready_file), *options)
        return self.start("worker", argv, drain_s + KILL_MARGIN_S)

    def start_flower(self) -> bool:
        """Start Flower, if it is installed."""
        if not is_installed("monitor"):
            return False
        self.start("flower", _command("flower"), FLOWER_STOP_S)
        return True

    def start_webhooks(self) -> None:
        """Start what delivers webhooks."""
        self.start("webhooks", _command("webhooks", "--concurrency", "4"), WEBHOOKS_STOP_S)

    def start_gateway(self, flower_url: str = "") -> str | None:
        """Start the HTTP gateway, if it is installed: where it will answer."""
        if not is_installed("gateway"):
            return None
        self.start("gateway", _command("gateway", "--flower", flower_url), GATEWAY_STOP_S)
        address, port = (os.environ.get(f"CROSSMODAL_GATEWAY_{n}") for n in ("ADDRESS", "PORT"))
        return f"http://{address or '127.0.0.1'}:{port or 8000}"

    def wait_ready(self, ready_file: Path) -> None:
        """Wait until the worker takes jobs. Raises `StackFailed`."""
        if not wait_until(lambda: self.dead() is not None or ready_file.exists(), READY_S):
            raise StackFailed(f"the worker was not ready within {READY_S:g} s")
        self.check()

    def check(self) -> None:
        """Raise `StackFailed` when a child has ended by itself."""
        if (child := self.dead()) is not None:
            ended = f"{child.name} ended with status {child.returncode}"
            way_out = WAYS_OUT.get(child.name)
            raise StackFailed(f"{ended}: {way_out}" if way_out else ended)

    @property
    def children(self) -> list[Child]:
        """What runs, in the order in which it was started."""
        return [child for child, _ in self._children]

    def dead(self) -> Child | None:
        """A child that has ended by itself, if there is one."""
        return next((child for child in self.children if not child.is_alive), None)

    def stop(self) -> None:
        """Stop all children, the last one first. Ctrl-C tells the one that is awaited again."""
        while self._children:
            child, stop_s = self._children[-1]
            try:
                child.stop(stop_s)
            except KeyboardInterrupt:  # a worker that is told twice does not finish its jobs
                continue
            self._children.pop()

    def start(self, name: str, argv: list[str], stop_s: float) -> Child:
        """Start a program of the stack, which has `stop_s` to end when the stack stops."""
        child = Child(name, argv, self._env, output=self._log)
        child.start()
        self.add(child, stop_s)
        return child


def _command(name: str, *args: str) -> list[str]:
    return python_module("crossmodal.cli", name, *args)
