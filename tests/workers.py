"""Private workers for tests, and helpers to find and suspend their processes."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from crossmodal.local.stack import Stack
from crossmodal.processes import Child
from crossmodal.settings import Settings
from tests.fakes.worker import HOST
from worker.host_process import MODEL_HOST

Supervisor = Child | psutil.Process
FAKE_WORKER = ("-m", "tests.fakes.worker")
REAL_WORKER = ("-m", "crossmodal.cli", "worker", "--devices", "cpu")


@contextmanager
def running_worker(
    env: dict[str, str], folder: Path, concurrency: int, models: str = "fake"
) -> Iterator[Child]:
    """Run a ready worker on the CPU with fake models; its output is `log` in the folder."""
    folder.mkdir()
    ready = folder / "ready"
    with (folder / "log").open("wb") as log, Stack(env, log) as stack:
        argv = [
            sys.executable,
            *FAKE_WORKER,
            "--concurrency",
            str(concurrency),
            "--models",
            models,
            "--ready-file",
            str(ready),
        ]
        worker = stack.start("worker", argv, 90)
        stack.wait_ready(ready)
        yield worker


@contextmanager
def real_worker(env: dict[str, str], folder: Path, concurrency: int) -> Iterator[Child]:
    """Run `crossmodal worker` on the CPU with the shipped models, in the same way."""
    folder.mkdir()
    with (folder / "log").open("wb") as log, Stack(env, log) as stack:
        options = ["--devices", "cpu", "--concurrency", str(concurrency)]
        worker = stack.start_worker(options, 60, folder / "ready")
        stack.wait_ready(folder / "ready")
        yield worker


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment variables that correspond to these settings."""
    password = settings.sentinel_password
    return {
        "CELERY_BROKER_URL": settings.broker_url.get_secret_value(),
        "CELERY_RESULT_BACKEND": "",
        "CROSSMODAL_KEY_PREFIX": settings.key_prefix,
        "CROSSMODAL_SENTINEL_MASTER": settings.sentinel_master,
        "CROSSMODAL_SENTINEL_PASSWORD": password.get_secret_value() if password else "",
        "CROSSMODAL_STORAGE_URL": settings.storage_url,
    }


@contextmanager
def suspended(process: psutil.Process) -> Iterator[None]:
    """Suspend a process for the block, for example to keep a model host's jobs running.

    The process may be killed meanwhile.
    """
    process.suspend()
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.resume()


def tree_of(supervisor: Supervisor) -> list[psutil.Process]:
    root = psutil.Process(supervisor.pid)
    return [root, *root.children(recursive=True)]


def alive(process: psutil.Process) -> bool:
    """Whether a process has not ended; a zombie counts as ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def hosts_of(supervisor: Supervisor) -> list[psutil.Process]:
    """Return the model hosts themselves, without their forks."""
    return [child for child, line in _started(supervisor) if {MODEL_HOST, HOST} & set(line)]


def host_of(supervisor: Supervisor) -> psutil.Process:
    """Return the only model host."""
    [host] = hosts_of(supervisor)
    return host


def celery_workers(supervisor: Supervisor) -> list[psutil.Process]:
    """Return the Celery workers, one per device."""
    return [child for child, line in _started(supervisor) if "worker.celery" in line]


def celery_worker(supervisor: Supervisor) -> psutil.Process:
    """Return the only Celery worker."""
    [celery] = celery_workers(supervisor)
    return celery


def _started(supervisor: Supervisor) -> list[tuple[psutil.Process, list[str]]]:
    """Return the supervisor's own children with their commands, without adopted orphans."""
    return [(child, _command_line(child)) for child in _children(supervisor) if _leads(child)]


def _leads(process: psutil.Process) -> bool:
    """Whether a process leads its group: the supervisor's children do, their forks do not."""
    try:
        return os.getpgid(process.pid) == process.pid
    except ProcessLookupError:
        return False


def _children(process: Supervisor) -> list[psutil.Process]:
    """Return the children of a process; none if it has just ended, as some tests kill it."""
    try:
        return psutil.Process(process.pid).children()
    except psutil.NoSuchProcess:
        return []


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # ended, or not yet waited for
        return []
