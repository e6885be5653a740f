"""The child processes of a stack, which start, become ready and stop together."""

from pathlib import Path
from types import TracebackType
from typing import IO, Self

from crossmodal.console import USAGE
from crossmodal.errors import CrossmodalError, InvalidSetting
from crossmodal.extras import is_installed
from crossmodal.files import private
from crossmodal.jobs.names import BACKGROUND
from crossmodal.local.places import Place
from crossmodal.processes import Child, python_module, wait_until

READY_S = 120.0
FLOWER_STOP_S = 5.0
BACKGROUND_STOP_S = 45.0  # a webhook's receiver may take 30 s
GATEWAY_STOP_S = 15.0
KILL_MARGIN_S = 30.0  # beyond a worker's own drain
TAIL = 20  # lines of a log


class StackFailed(CrossmodalError):
    """A process ended by itself or was not ready in time; `tail` is the end of its log."""

    code = "stack_failed"

    def __init__(self, message: str, tail: str = "") -> None:
        super().__init__(message)
        self.tail = tail


class Stack:
    """Child processes that start in order and stop in reverse, each with its own timeout.

    Their output goes to standard error or to `log`: a file, or a folder with a file for each.
    """

    def __init__(self, env: dict[str, str], log: IO[bytes] | Path | None = None) -> None:
        self._env = env
        self._log = log
        self._children: list[tuple[Child, float]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def add(self, child: Child, stop_s: float) -> None:
        """Add a child that runs already; it has `stop_s` seconds to end when the stack stops."""
        self._children.append((child, stop_s))

    def start_worker(self, options: list[str], drain_s: float, ready_file: Path) -> Child:
        """Start a supervisor with its model hosts and Celery workers."""
        argv = _command("worker", "--ready-file", str(ready_file), *options)
        return self.start("worker", argv, drain_s + KILL_MARGIN_S)

    def start_flower(self) -> bool:
        """Start Flower, if it is installed; return whether it is."""
        if not is_installed("monitor"):
            return False
        self.start("flower", _command("flower"), FLOWER_STOP_S)
        return True

    def start_background(self, *options: str) -> Child:
        """Start the webhook sender and the batch runner."""
        return self.start(BACKGROUND, _command(BACKGROUND, *options), BACKGROUND_STOP_S)

    def start_gateway(self, flower_url: str = "") -> str | None:
        """Start the HTTP gateway, if it is installed; return its URL, else None."""
        if not is_installed("gateway"):
            return None
        self.start("gateway", _command("gateway", "--flower", flower_url), GATEWAY_STOP_S)
        return Place.gateway().url

    def wait_ready(self, ready_file: Path) -> None:
        """Wait until the worker takes jobs. Raises `StackFailed`."""
        if not wait_until(lambda: self.dead() is not None or ready_file.exists(), READY_S):
            raise StackFailed(f"the worker was not ready within {READY_S:g} s")
        self.check()

    def check(self) -> None:
        """Raise an error if a child has ended by itself: `StackFailed`, or `InvalidSetting`."""
        if (child := self.dead()) is not None:
            raise self._failure(child)

    def _failure(self, child: Child) -> CrossmodalError:
        """Return why a child ended, with its own error message if its log has one."""
        ended = f"{child.name} ended with status {child.returncode}"
        if not isinstance(self._log, Path):
            return StackFailed(ended)
        file = self._file(self._log, child.name)
        lines = file.read_text(errors="replace").splitlines()[-TAIL:]
        said = next((i for i, line in enumerate(lines) if line.startswith("error ")), None)
        if said is None:
            return StackFailed(f"{ended}; its log is {file}", "\n".join(lines))
        _, code, *words = " ".join(lines[said:]).split(" ")
        problem = " ".join(words)
        if child.returncode == USAGE:
            return InvalidSetting(problem)
        return StackFailed(f"{ended}: {code}: {problem}")

    @staticmethod
    def _file(folder: Path, name: str) -> Path:
        return folder / f"{name}.log"

    @property
    def children(self) -> list[Child]:
        """All children, in the order in which they started."""
        return [child for child, _ in self._children]

    def dead(self) -> Child | None:
        """Return a child that has ended by itself, or None."""
        return next((child for child in self.children if not child.is_alive), None)

    def stop(self) -> None:
        """Stop all children, the last one first. On Ctrl-C, signal the awaited child again."""
        while self._children:
            child, stop_s = self._children[-1]
            try:
                child.stop(stop_s)
            except KeyboardInterrupt:  # a worker's second signal ends its jobs, too
                continue
            self._children.pop()

    def start(self, name: str, argv: list[str], stop_s: float) -> Child:
        """Start a program, which has `stop_s` seconds to end when the stack stops."""
        if isinstance(self._log, Path):
            with open(self._file(self._log, name), "wb", opener=private) as log:
                return self._start(Child(name, argv, self._env, output=log), stop_s)
        return self._start(Child(name, argv, self._env, output=self._log), stop_s)

    def _start(self, child: Child, stop_s: float) -> Child:
        child.start()
        self.add(child, stop_s)
        return child


def _command(name: str, *args: str) -> list[str]:
    return python_module("crossmodal.cli", name, *args)
