"""Files that are written whole or not at all."""

import os
from pathlib import Path

from crossmodal.errors import OutputNotWritable


def write_whole(path: Path, data: bytes | str) -> None:
    """Replace `path` by `data` in one step. Raises `OutputNotWritable`, leaving it as it was."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as e:
        part.unlink(missing_ok=True)
        raise OutputNotWritable(f"{path} cannot be written: {e.strerror or e}") from e
