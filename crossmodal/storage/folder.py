"""A folder's files, written and read without the threads through which obstore does it.

A job reads or writes two of them, and each of those threads costs it more than the file does.
The layout is that of obstore's `LocalStore`, which does all else in the same folder.
"""

import os
import re
import secrets
from pathlib import Path

# Ours are. obstore quotes or refuses what else a caller may name.
PLAIN_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
MOST = 200  # characters; file systems have limits of their own beyond that
TRIES = 3


class Folder:
    """Whole files by their keys. Every method may raise `OSError`."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def has_path_for(self, key: str) -> bool:
        """Whether the key is as it stands the path of a file below the folder."""
        return len(key) <= MOST and PLAIN_KEY.fullmatch(key) is not None

    def write(self, key: str, data: bytes) -> None:
        """Put a file in the place of what was there, whole or not at all."""
        path = f"{self._path}/{key}"
        staged = f"{path}#{secrets.randbits(48)}"  # what is called so, obstore does not list
        try:
            _write_new(staged, data)
            os.rename(staged, path)  # noqa: PTH104 - a Path takes longer to make than this
        except OSError:
            Path(staged).unlink(missing_ok=True)
            raise

    def read(self, key: str, max_bytes: int | None = None) -> tuple[int, bytes]:
        """A file's size and its bytes; without them when it is larger than `max_bytes`."""
        try:
            with open(f"{self._path}/{key}", "rb", buffering=0) as file:  # noqa: PTH123
                size = os.fstat(file.fileno()).st_size
                too_large = max_bytes is not None and size > max_bytes
                return size, b"" if too_large else file.readall()
        except (IsADirectoryError, NotADirectoryError) as e:
            raise FileNotFoundError(f"there is no file at {key!r}") from e


def _write_new(path: str, data: bytes) -> None:
    for _ in range(TRIES):
        try:
            with open(path, "xb") as file:  # noqa: PTH123
                file.write(data)
            return
        except FileNotFoundError:  # no such folder, or one that was just removed as empty
            Path(path).parent.mkdir(parents=True, exist_ok=True)
    raise FileNotFoundError(f"the folder of {path} is removed again and again")
