"""Child processes that are started, watched and ended by this one."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import IO, NoReturn

log = logging.getLogger(__name__)

STDERR = 2  # standard output is reserved for a command's own output
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
COLLECT_S = 1.0
KILL_S = 5.0  # a killed process that outlives this hangs in the kernel, as on a broken device
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def python_module(name: str, *args: str) -> list[str]:
    """Return the command line that runs a module, ignoring the working directory."""
    return [sys.executable, "-P", "-m", name, *args]


@dataclass
class Child:
    """A program in its own session: Ctrl-C in the terminal reaches only its parent.

    On Linux it gets `death_signal` when the thread that started it dies, for any reason.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    output: IO[bytes] | None = None
    stdin: bytes | None = None
    death_signal: signal.Signals = signal.SIGTERM
    nice: int = 0
    umask: int = -1  # inherited
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0

    def start(self) -> None:
        parent = os.getpid()
        self.process = subprocess.Popen(
            self.argv,
            env={**os.environ, **self.env},
            stdin=subprocess.PIPE if self.stdin is not None else subprocess.DEVNULL,
            stdout=self.output or STDERR,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=self.umask,
            preexec_fn=lambda: self._prepare(parent),
        )
        self.started_at = time.monotonic()
        if self.stdin is not None and self.process.stdin is not None:
            self.process.stdin.write(self.stdin)
            self.process.stdin.close()

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int | None:
        return None if self.process is None else self.process.pid

    @property
    def returncode(self) -> int | None:
        return None if self.process is None else self.process.poll()

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; return whether it came within `timeout_s`."""
        if self.process is None:
            return True
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, timeout_s: float) -> None:
        """Send SIGTERM; kill the whole session if it has not ended within `timeout_s`."""
        self.send(signal.SIGTERM)
        if not self.wait(timeout_s):
            self.kill()

    def kill(self) -> None:
        """Send SIGKILL to the process and its descendants, also if it was killed before them."""
        status, process = self.returncode, self.process
        if process is None:
            return
        if status is None or status < 0:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if not self.wait(KILL_S):
                log.error("%s does not end after SIGKILL: it hangs in the kernel", self.name)
                return
        wait_until(lambda: _has_collected(process.pid), COLLECT_S, 0.01)

    def _prepare(self, parent: int) -> None:
        os.nice(self.nice)
        die_with_parent(self.death_signal, parent)


def _has_collected(group: int) -> bool:
    """Reap ended orphans of a process group; return whether none is left."""
    try:
        while os.waitpid(-group, os.WNOHANG)[0]:
            continue
        return False
    except ChildProcessError:
        return True


def die_with_parent(number: signal.Signals, parent: int) -> None:
    """On Linux, request a signal for this process when the thread that started it dies.

    Exits at once if `parent`, the process of that thread, has already died.
    """
    if _LIBC is None:
        return
    _LIBC.prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(os.EX_UNAVAILABLE)


def adopt_orphans() -> None:
    """On Linux, make this process the parent of the orphans of its children."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def collect_orphans(own: Collection[int]) -> None:
    """On Linux, reap the adopted orphans that have ended.

    Leaves the `own` children of this process to the code that started them.
    """
    if _LIBC is None:
        return
    how = os.WEXITED | os.WNOHANG | os.WNOWAIT
    with suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, how)) is not None and ended.si_pid not in own:
            os.waitpid(ended.si_pid, os.WNOHANG)


def wait_until(condition: Callable[[], bool], timeout_s: float, poll_s: float = 0.05) -> bool:
    """Poll `condition`; return whether it became true within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(poll_s)
    return True


def treat_sigterm_as_interrupt() -> None:
    """Make SIGTERM end this process as Ctrl-C does, so that it cleans up either way.

    SIGINT is set too, because shells start background jobs with SIGINT ignored.
    """

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    on_end(interrupt)


def on_end(handler: Callable[[int, FrameType | None], object]) -> None:
    """Call `handler` on SIGTERM and SIGINT, and on SIGHUP unless it is ignored, as by nohup."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, handler)
