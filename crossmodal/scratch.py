"""Folders for work in progress, removed even where the process that made one was killed."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """An empty folder until the end of the block.

    What killed processes have left for the same purpose is removed first.
    """
    remove_abandoned(purpose)
    folder, handle = _made(purpose)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def remove_abandoned(purpose: str) -> None:
    """Remove what killed processes have left."""
    for left in Path(tempfile.gettempdir()).glob(f"{_prefix(purpose)}*"):
        with suppress(OSError):  # it is in use, another user's, or just gone
            handle = _locked(left)
            try:
                shutil.rmtree(left)
            finally:
                os.close(handle)


def _made(purpose: str) -> tuple[Path, int]:
    """A folder of one's own, and the handle that locks it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(purpose)))
        try:
            handle = _locked(folder)
        except (FileNotFoundError, BlockingIOError):  # another took it for abandoned
            continue
        if folder.exists():
            return folder, handle
        os.close(handle)


def _prefix(purpose: str) -> str:
    return f"crossmodal-{purpose}-"


def _locked(folder: Path) -> int:
    """Raises `BlockingIOError` where another holds it; a dead process holds nothing."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle
