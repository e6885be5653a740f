"""Files that are written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
