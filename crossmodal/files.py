"""Files that are written whole or not at all, read only if they end, and kept from others."""

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
    """A file to write beside `path`, which it replaces at the end, unless something fails.

    Raises `OutputNotWritable` for a full disk and the like, leaving `path` as it was.
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
    """Replace `path` by `data` in one step. Raises `OutputNotWritable`, leaving it as it was."""
    with whole(path) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)


def open_regular(path: Path | str) -> BinaryIO:
    """A file that somebody named, open for reading, if it is one.

    Raises `OSError`, also for a device, a pipe, a socket or a folder: these may never end.
    """
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - given to the caller
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file")
    return file


def read_regular(path: Path, max_bytes: int) -> bytes:
    """What is in a file that somebody named. Raises `OSError`, also for one that is too large."""
    with open_regular(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"it has more than {max_bytes} bytes")
    return data


def _without_waiting(path: str, flags: int) -> int:
    """Open a path; a pipe that nobody writes to is open at once."""
    return os.open(path, flags | os.O_NONBLOCK)


def make_folders(folder: Path) -> set[Path]:
    """Make a folder and those it is in, for this user alone; what has a new one in it."""
    missing = list(takewhile(lambda one: not one.exists(), (folder, *folder.parents)))
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)
    return {one.parent for one in missing}


def make_private(folder: Path) -> None:
    """Make a folder for this user alone, also one that is there, with all that is in it.

    Raises `OSError`.
    """
    make_folders(folder)
    for path in (folder, *folder.rglob("*")):
        found = path.lstat()
        if found.st_uid == os.getuid() and not stat.S_ISLNK(found.st_mode):
            path.chmod(0o700 if stat.S_ISDIR(found.st_mode) else 0o600)
