"""Limits of a machine or container: shortages, their remedies, and checks at startup."""

import errno
import os
import resource
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from crossmodal.errors import InvalidSetting

MAX_FILES = 65_536
MIN_FILES = 128
MIN_TASKS = 48  # processes and threads of a worker with a few jobs
MIN_SERVER_TASKS = 16  # ... of a gateway and the like
MORE_FILES = "raise the limit, for example with `ulimit -n 4096`"
MORE_TASKS = "raise the limit (`ulimit -u`, TasksMax=, `--pids-limit`)"
FILES = f"too many open files and connections: {MORE_FILES}"
TASKS = f"too many processes and threads: {MORE_TASKS}"
NO_THREAD, NO_TMPDIR = "can't start new thread", "No usable temporary directory"  # of Python
SHORTAGES = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EAGAIN,
        errno.ENOBUFS,
    }
)
FOLDERS = "set XDG_DATA_HOME, CROSSMODAL_RUN_DIR and TMPDIR to folders that can be written to"
DENIED = {
    errno.EMFILE: FILES,
    errno.ENFILE: FILES,
    errno.EAGAIN: TASKS,
    errno.ENOMEM: "out of memory: end other programs, or raise the container's limit",
    errno.EROFS: f"{{file}} is on a file system that is read-only: {FOLDERS}",
    errno.ENOSPC: f"{{file}} is on a disk that is full: make room there, or {FOLDERS}",
    errno.EDQUOT: f"{{file}} is over this user's disk quota: make room, or {FOLDERS}",
}


def is_shortage(error: BaseException | None) -> bool:
    """Return whether an error means that the machine is short of a resource, such as disk."""
    if isinstance(error, OSError):
        return error.errno in SHORTAGES or NO_TMPDIR in str(error)
    return isinstance(error, RuntimeError) and NO_THREAD in str(error)


def denied(error: OSError | RuntimeError) -> InvalidSetting | None:
    """Return the setting error, with its remedy, for a denied resource; None for others."""
    if NO_THREAD in str(error):
        return InvalidSetting(TASKS)
    if NO_TMPDIR in str(error):
        return InvalidSetting(
            "this user may write to no folder for temporary files: set TMPDIR to a writable one"
        )
    if not isinstance(error, OSError) or error.errno not in DENIED:
        return None
    return InvalidSetting(DENIED[error.errno].format(file=error.filename or "a file"))


def allow_many_files() -> None:
    """Raise the soft limit of open files to this user's hard limit, up to `MAX_FILES`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    max_files = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < max_files:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max_files, hard))


def have_home() -> None:
    """Set HOME for a user without one, because libraries need it."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"  # the usual value in containers; this project stores nothing there


def check_room() -> None:
    """Raise `InvalidSetting` if a worker may not open enough files or start enough threads."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < MIN_FILES:
        raise InvalidSetting(
            f"a worker needs {MIN_FILES} open files, {files} are allowed: {MORE_FILES}"
        )
    check_tasks("a worker", MIN_TASKS)


def check_tasks(what: str, count: int = MIN_SERVER_TASKS) -> None:
    """Raise `InvalidSetting` if `count` more processes and threads may not be started.

    It starts and ends threads as a test: a library that cannot start its own kills the process
    without a message.
    """
    done = Event()
    try:
        for _ in range(count):
            Thread(target=done.wait, daemon=True).start()
    except RuntimeError as e:
        raise InvalidSetting(
            f"{what} needs {count} more processes and threads: {MORE_TASKS}"
        ) from e
    finally:
        done.set()
