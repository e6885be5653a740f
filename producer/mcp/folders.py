"""Reads of local pictures for an agent, limited to the folders that its user named."""

from collections.abc import Sequence
from pathlib import Path

from crossmodal.errors import Forbidden, InvalidImage, described
from crossmodal.vision.media import NAMES, media_type
from producer.pictures.files import bytes_of


def read_picture(path: str, folders: Sequence[Path], max_bytes: int) -> bytes:
    """Return the bytes of a picture's file; `path` may be relative to one of the folders.

    Links are resolved first. Raises `Forbidden` for a path outside all folders, `InvalidImage`,
    and what `bytes_of` raises.
    """
    try:
        found = _found(path, folders)
    except (OSError, RuntimeError, ValueError) as e:  # too long, no such home, or a null byte
        raise InvalidImage(f"path: {path[:400]!r} is not a valid path: {described(e)}") from e
    return _checked(bytes_of(found, max_bytes), path)


def _found(path: str, folders: Sequence[Path]) -> Path:
    for folder in folders:
        inside = folder.resolve()
        found = (inside / Path(path).expanduser()).resolve()
        if found.is_relative_to(inside) and (found.exists() or folder is folders[-1]):
            return found
    raise Forbidden(
        f"path: {path[:400]!r} is in none of the folders that this server may read, which are "
        f"{', '.join(map(str, folders))}: give another, or send the picture as data"
    )


def _checked(data: bytes, path: str) -> bytes:
    """Return the data if they are a picture's; the error for others reveals none of them."""
    try:
        media_type(data)
    except InvalidImage:
        raise InvalidImage(
            f"path: {path[:400]!r} is not a supported image: give a {NAMES} file"
        ) from None
    return data
