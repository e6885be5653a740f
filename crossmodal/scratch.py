"""Folders for work in progress, removed even where the process that made one was killed."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NEW_S = 60.0  # a folder as young as this may not be locked yet by who has just made it


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """An empty folder until the end of the block.

    What killed processes have left for the same purpose is removed first.
    """
    prefix = f"crossmodal-{purpose}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):  # it is another user's, or just gone
            _remove_if_abandoned(left)
    with tempfile.TemporaryDirectory(prefix=prefix) as folder, _locked(folder):
        yield Path(folder)


def _remove_if_abandoned(folder: Path) -> None:
    if time.time() - folder.stat().st_mtime > NEW_S:
        with _locked(folder):
            shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path | str) -> Iterator[None]:
    """Raises `BlockingIOError` where another holds it; a dead process holds nothing."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
