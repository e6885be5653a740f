"""A small disk that a storm may fill: if this process is root, a file system of its own."""

import os
import subprocess
from pathlib import Path

CHUNK = 1_000_000


class Disk:
    """A folder that holds at most some megabytes; without root, an ordinary folder."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        self._filler = folder / "filler"
        folder.mkdir(parents=True, exist_ok=True)
        self.may_fill = os.geteuid() == 0 and _done(
            "mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "storm", str(folder)
        )

    def fill(self) -> None:
        """Fill the disk to the last byte."""
        assert self.may_fill
        with self._filler.open("ab", buffering=0) as filler:
            size = CHUNK
            while size:
                try:
                    filler.write(bytes(size))
                except OSError:
                    size //= 2

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        if self.may_fill:
            _done("umount", "--lazy", str(self.folder))


def _done(*argv: str) -> bool:
    return subprocess.run(argv, capture_output=True, timeout=30).returncode == 0
