"""A folder's files, written and read without the threads through which obstore does it.

A job reads or writes two of them, and each of those threads costs it more than the file does.
The layout is that of obstore's `LocalStore`, which does all else in the same folder. Files and
folders are for this user alone.
"""

import errno
import os
import re
import secrets
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO

from crossmodal.files import make_folders, open_regular
from crossmodal.jobs.names import CHECKS, INPUTS, PREVIEWS, RESULTS

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

    def make(self) -> None:
        """Have the folder, and close to others what earlier versions have left open in it.

        The folder itself stays as it is: it may be one that is there for other things, too.
        """
        _keep_names(make_folders(Path(self._path)))
        for name in (RESULTS, INPUTS, PREVIEWS, CHECKS):
            path = f"{self._path}/{name}"
            if _kind(path) == stat.S_IFDIR:
                with suppress(PermissionError):  # it is another user's
                    Path(path).chmod(0o700)

    def check(self, key: str) -> None:
        """Raise `FileNotFoundError` for what a link leads to, and for a pipe, device or socket."""
        path = self._path
        for part in key.split("/"):
            path = f"{path}/{part}"
            kind = _kind(path)
            if kind is None:
                return
            if kind not in (stat.S_IFREG, stat.S_IFDIR):
                raise FileNotFoundError(f"{path} is a link, or no file: nothing is followed there")

    def holds(self, key: str) -> bool:
        """Whether `check` lets a key pass."""
        try:
            self.check(key)
        except FileNotFoundError:
            return False
        return True

    def has_path_for(self, key: str) -> bool:
        """Whether the key is as it stands the path of a file below the folder."""
        return len(key) <= MOST and PLAIN_KEY.fullmatch(key) is not None

    def write(self, key: str, data: bytes | Path | IO[bytes]) -> None:
        """Put bytes, or those of a file, in the place of what was there: whole or not at all.

        With `fsync`, they are on the disk when this returns, and so is the name.
        """
        path = f"{self._path}/{key}"
        staged = f"{path}#{secrets.randbits(48)}"  # what is called so, obstore does not list
        try:
            changed = self._write_new(staged, data)
            os.rename(staged, path)  # noqa: PTH104 - a Path takes longer to make than this
            if self._fsync:
                _keep_names(changed)
        except OSError:
            Path(staged).unlink(missing_ok=True)
            raise

    def _write_new(self, path: str, data: bytes | Path | IO[bytes]) -> set[Path]:
        """Write a file; all folders that have something new in them with it."""
        changed = {folder := Path(path).parent}
        for _ in range(TRIES):
            try:
                with open(path, "xb", opener=_private) as file:
                    _copy(data, file)
                    if self._fsync:
                        file.flush()
                        os.fsync(file.fileno())
                return changed
            except FileNotFoundError:  # no such folder, or one that was just removed as empty
                changed |= make_folders(folder)
        raise FileNotFoundError(f"the folder of {path} is removed again and again")

    def read(self, key: str, max_bytes: int | None = None) -> tuple[int, bytes]:
        """A file's size and its bytes; without them when it is larger than `max_bytes`."""
        try:
            with open_regular(f"{self._path}/{key}") as file:
                size = os.fstat(file.fileno()).st_size
                too_large = max_bytes is not None and size > max_bytes
                return size, b"" if too_large else file.read()
        except (IsADirectoryError, NotADirectoryError) as e:
            raise FileNotFoundError(f"there is no file at {key!r}") from e


def _kind(path: str) -> int | None:
    """What lies at a path, if anything does."""
    try:
        return stat.S_IFMT(os.lstat(path).st_mode)
    except OSError:
        return None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _copy(data: bytes | Path | IO[bytes], file: IO[bytes]) -> None:
    if isinstance(data, bytes):
        file.write(data)
    elif isinstance(data, Path):
        with data.open("rb") as source:
            shutil.copyfileobj(source, file, PIECE)
    else:
        shutil.copyfileobj(data, file, PIECE)


def _keep_names(folders: set[Path]) -> None:
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
