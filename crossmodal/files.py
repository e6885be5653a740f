"""Atomic file writes, reads of regular files only, and private folders."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO

from crossmodal.errors import OutputNotWritable, described


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`, which replaces `path` if the block succeeds.

    Raises `OutputNotWritable` for a full disk and the like, leaving `path` unchanged.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())  # a power cut must not leave an empty file in its place
        part.replace(path)
    except OSError as e:
        raise OutputNotWritable(f"{path} cannot be written: {described(e)}") from e
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes | str) -> None:
    """Write `data` to `path` atomically. Raises `OutputNotWritable`, leaving `path` unchanged."""
    with whole(path) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)


def open_regular(path: Path | str) -> BinaryIO:
    """Open a regular file for reading.

    Raises `OSError`, also for a device, a pipe, a socket or a folder: reads of these may never end.
    """
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - returned to the caller
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file")
    return file


def read_regular(path: Path, max_bytes: int) -> bytes:
    """Read a regular file. Raises `OSError`, also if it has more than `max_bytes`."""
    with open_regular(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"it has more than {max_bytes} bytes")
    return data


def _without_waiting(path: str, flags: int) -> int:
    """Open a path without blocking on a pipe that has no writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def private(path: str, flags: int) -> int:
    """Open a file that is for its user alone: an `opener` for `open`."""
    return os.open(path, flags, 0o600)


def make_folders(folder: Path) -> set[Path]:
    """Create a folder and its parents, mode 0700; return the parents of the new ones."""
    missing = list(takewhile(lambda one: not one.exists(), (folder, *folder.parents)))
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)
    return {one.parent for one in missing}


def make_private(folder: Path) -> None:
    """Create a folder if needed; remove others' access to it and its contents.

    Raises `OSError`.
    """
    make_folders(folder)
    for path in (folder, *folder.rglob("*")):
        found = path.lstat()
        if found.st_uid == os.getuid() and not stat.S_ISLNK(found.st_mode):
            path.chmod(0o700 if stat.S_ISDIR(found.st_mode) else 0o600)
