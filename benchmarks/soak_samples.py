"""Samples of a stack's resources: its processes by role, Redis, object store, disk."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from redis import Redis
from soak_load import Soaking

MB = 1e6
PARTS = ("PSS MB", "USS MB", "RSS MB", "fds", "threads")
# Text in a command line -> role of the process; the first match counts.
ROLES = {
    "valkey": "Valkey",
    "worker.celery": "Celery worker",
    "worker.host": "model host",
    "worker.decoders": "decoders",
    " gateway": "gateway",
    " background": "background",
    " worker ": "supervisor",
}


class Sampler:
    """A sampler of all series; a sample maps each series' name to its value."""

    def __init__(self, stack: Soaking) -> None:
        self._stack = stack
        self._redis: Any = Redis.from_url(stack.broker_url, decode_responses=True)
        self.sample()  # discarded: some processes have not started yet

    def sample(self) -> dict[str, float]:
        """Return a sample; of the decoders, which come and go, the largest counts."""
        found = {f"{role} {what}": 0.0 for role in ROLES.values() for what in PARTS}
        for role, process in self._processes():
            with suppress(psutil.Error):  # it has just ended
                for what, value in _taken_by(process).items():
                    found[f"{role} {what}"] = max(found[f"{role} {what}"], value)
        return {name: round(n, 2) for name, n in (found | self._shared()).items()}

    def _shared(self) -> dict[str, float]:
        info = self._redis.info()
        return {
            "Redis connections": info["connected_clients"],
            "Redis used MB": info["used_memory"] / MB,
            "Redis keys": self._redis.dbsize(),
            "Celery unacked": self._redis.hlen("unacked"),
            "temporary files": _files(self._stack.temporary),
            "store files": _files(self._stack.store),
        }

    def _processes(self) -> Iterator[tuple[str, psutil.Process]]:
        """Yield all descendants of this process with their roles."""
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it has just ended
                line = " ".join(process.cmdline()) + " "
                role = next((role for words, role in ROLES.items() if words in line), None)
                if role is not None:
                    yield role, process


def _taken_by(process: psutil.Process) -> dict[str, float]:
    with process.oneshot():
        memory = process.memory_full_info()
        sizes = (memory.pss / MB, memory.uss / MB, memory.rss / MB)
        return dict(zip(PARTS, (*sizes, process.num_fds(), process.num_threads()), strict=True))


def _files(folder: Path) -> int:
    """Count the files in a folder, tolerating deletions meanwhile."""
    return sum(len(files) for _, _, files in os.walk(folder))
