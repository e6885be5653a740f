"""A folder's files, written and read without the threads through which obstore does it.

A job reads or writes two of them, and each of those threads costs it more than the file does.
The layout is that of obstore's `LocalStore`, which does all else in the same folder.
"""

import errno
import os
import re
import secrets
import shutil
from itertools import takewhile
from pathlib import Path
from typing import IO

# Ours are. obstore quotes or refuses what else a caller may name.
PLAIN_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
MOST = 200  # characters; file systems have limits of their own beyond that
TRIES = 3
PIECE = 1_024 * 1_024  # bytes of a file that are copied at once


class Folder:
    """Whole files by their keys. Every method may raise `OSError`."""

    def __init__(self, path: Path, *, fsync: bool = True) -> None:
        self._path = str(path)
        self._fsync = fsync

    def has_path_for(self, key: str) -> bool:
        """Whether the key is as it stands the path of a file below the folder."""
        return len(key) <= MOST and PLAIN_KEY.fullmatch(key) is not None

    def write(self, key: str, data: bytes | Path) -> None:
        """Put bytes, or a copy of a file, in the place of what was there: whole or not at all.

        With `fsync`, they are on the disk when this returns, and so is the name.
        """
        path = f"{self._path}/{key}"
        staged = f"{path}#{secrets.randbits(48)}"  # what is called so, obstore does not list
        try:
            changed = self._write_new(staged, data)
            os.rename(staged, path)  # noqa: PTH104 - a Path takes longer to make than this
            if self._fsync:
                keep_names(changed)
        except OSError:
            Path(staged).unlink(missing_ok=True)
            raise

    def _write_new(self, path: str, data: bytes | Path) -> set[Path]:
        """Write a file; all folders that have something new in them with it."""
        changed = {folder := Path(path).parent}
        for _ in range(TRIES):
            try:
                with open(path, "xb") as file:  # noqa: PTH123
                    _copy(data, file)
                    if self._fsync:
                        file.flush()
                        os.fsync(file.fileno())
                return changed
            except FileNotFoundError:  # no such folder, or one that was just removed as empty
                changed |= make_folder(folder)
        raise FileNotFoundError(f"the folder of {path} is removed again and again")

    def read(self, key: str, max_bytes: int | None = None) -> tuple[int, bytes]:
        """A file's size and its bytes; without them when it is larger than `max_bytes`."""
        try:
            with open(f"{self._path}/{key}", "rb", buffering=0) as file:  # noqa: PTH123
                size = os.fstat(file.fileno()).st_size
                too_large = max_bytes is not None and size > max_bytes
                return size, b"" if too_large else file.readall()
        except (IsADirectoryError, NotADirectoryError) as e:
            raise FileNotFoundError(f"there is no file at {key!r}") from e


def _copy(data: bytes | Path, file: IO[bytes]) -> None:
    if isinstance(data, bytes):
        file.write(data)
    else:
        with data.open("rb") as source:
            shutil.copyfileobj(source, file, PIECE)


def make_folder(folder: Path) -> set[Path]:
    """Make a folder, and those that it is in; those of them that have a new one in them."""
    missing = list(takewhile(lambda one: not one.exists(), (folder, *folder.parents)))
    folder.mkdir(parents=True, exist_ok=True)
    return {one.parent for one in missing}


def keep_names(folders: set[Path]) -> None:
    """Force to the disk which files and folders these have in them."""
    for folder in folders:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        except OSError as e:
            if e.errno != errno.EINVAL:  # what some network file systems answer
                raise
        finally:
            os.close(handle)
