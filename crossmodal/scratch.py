"""Temporary folders that are removed even if the process that made them was killed."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """Yield an empty folder, which is removed at the end of the block.

    First removes the folders that killed processes left for the same purpose.
    """
    remove_abandoned(purpose)
    folder, handle = _made(purpose)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def remove_abandoned(purpose: str) -> None:
    """Remove the folders that killed processes left for a purpose."""
    for left in Path(tempfile.gettempdir()).glob(f"{_prefix(purpose)}*"):
        with suppress(OSError):  # in use, another user's, or just removed
            handle = _locked(left)
            try:
                shutil.rmtree(left)
            finally:
                os.close(handle)


def _made(purpose: str) -> tuple[Path, int]:
    """Create a folder; return it and the descriptor that locks it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(purpose)))
        try:
            handle = _locked(folder)
        except (FileNotFoundError, BlockingIOError):  # another process took it for abandoned
            continue
        if folder.exists():
            return folder, handle
        os.close(handle)


def _prefix(purpose: str) -> str:
    return f"crossmodal-{purpose}-"


def _locked(folder: Path) -> int:
    """Lock a folder until the returned descriptor closes, or the process dies.

    Raises `BlockingIOError` if another process holds the lock.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle
