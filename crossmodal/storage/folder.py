"""Reads and writes of a folder's files without obstore's threads (ADR 0020).

A job reads or writes about two files, and switching to a thread costs more than the file itself.
The layout is that of obstore's `LocalStore`, which does all other operations in the same folder.
Only this user has access to the files and folders.
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

# All keys of this project match. obstore quotes or refuses other keys of a caller.
PLAIN_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
MOST = 200  # characters; below the limits of file systems
TRIES = 3
PIECE = 1_024 * 1_024  # bytes that are copied at once


class Folder:
    """A folder of whole files by key. Every method may raise `OSError`."""

    def __init__(self, path: Path, *, fsync: bool = True) -> None:
        self._path = str(path)
        self._fsync = fsync

    def make(self) -> None:
        """Create the folder, and make its subfolders private: earlier versions did not.

        An existing folder keeps its own mode, since it may have other uses.
        """
        _keep_names(make_folders(Path(self._path)))
        for name in (RESULTS, INPUTS, PREVIEWS, CHECKS):
            path = f"{self._path}/{name}"
            if _kind(path) == stat.S_IFDIR:
                with suppress(PermissionError):  # another user owns it
                    Path(path).chmod(0o700)

    def check(self, key: str) -> None:
        """Raise `FileNotFoundError` for a key behind a link, and for a pipe, device or socket."""
        path = self._path
        for part in key.split("/"):
            path = f"{path}/{part}"
            kind = _kind(path)
            if kind is None:
                return
            if kind not in (stat.S_IFREG, stat.S_IFDIR):
                raise FileNotFoundError(
                    f"{path} is a link or a special file, which the store does not follow"
                )

    def holds(self, key: str) -> bool:
        """Return whether a key passes `check`."""
        try:
            self.check(key)
        except FileNotFoundError:
            return False
        return True

    def has_path_for(self, key: str) -> bool:
        """Return whether the key, unquoted, is the path of a file below the folder."""
        return len(key) <= MOST and PLAIN_KEY.fullmatch(key) is not None

    def write(self, key: str, data: bytes | Path | IO[bytes]) -> None:
        """Write bytes, or those of a file, atomically, replacing what was there.

        With `fsync`, both the data and the name are on the disk when this returns.
        """
        path = f"{self._path}/{key}"
        staged = f"{path}#{secrets.randbits(48)}"  # obstore does not list names with '#'
        try:
            changed = self._write_new(staged, data)
            os.rename(staged, path)  # noqa: PTH104 - making a Path takes longer
            if self._fsync:
                _keep_names(changed)
        except OSError:
            Path(staged).unlink(missing_ok=True)
            raise

    def _write_new(self, path: str, data: bytes | Path | IO[bytes]) -> set[Path]:
        """Write a new file; return the folders in which this made an entry."""
        changed = {folder := Path(path).parent}
        for _ in range(TRIES):
            try:
                with open(path, "xb", opener=_private) as file:
                    _copy(data, file)
                    if self._fsync:
                        file.flush()
                        os.fsync(file.fileno())
                return changed
            except FileNotFoundError:  # the folder is missing, or was just removed as empty
                changed |= make_folders(folder)
        raise FileNotFoundError(f"the folder of {path} is removed again and again")

    def read(self, key: str, max_bytes: int | None = None) -> tuple[int, bytes]:
        """Return a file's size and bytes; no bytes if it is larger than `max_bytes`."""
        try:
            with open_regular(f"{self._path}/{key}") as file:
                size = os.fstat(file.fileno()).st_size
                too_large = max_bytes is not None and size > max_bytes
                return size, b"" if too_large else file.read()
        except (IsADirectoryError, NotADirectoryError) as e:
            raise FileNotFoundError(f"there is no file at {key!r}") from e


def _kind(path: str) -> int | None:
    """Return the file type (`S_IFMT`) at a path, or None; links are not followed."""
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
    """Sync folders to the disk, so that the names of new files survive a crash."""
    for folder in folders:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        except OSError as e:
            if e.errno != errno.EINVAL:  # some network file systems do not support it
                raise
        finally:
            os.close(handle)
