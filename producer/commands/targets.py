"""Output files for pictures: the suffix names the format; checked before the job is submitted."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from crossmodal.errors import ExtraMissing, InvalidSetting, OutputNotWritable, described
from producer.pictures.formats import converted

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
QUALITY = 95  # for conversion to lossy formats


def check_target(out: Path, count: int = 1, stored: str = "png") -> None:
    """Raise `InvalidSetting` or `ExtraMissing` where `count` pictures could not be written.

    `stored` is the format of the stored pictures.
    """
    kind = FORMATS.get(out.suffix.lower())
    if kind is None:
        raise InvalidSetting(f"-o {out}: give a name that ends in .png, .jpg, .jpeg or .webp")
    if kind != stored.upper() and find_spec("PIL") is None:
        raise ExtraMissing(
            f"-o {out}: {kind} needs Pillow, which is not installed: pip install pillow, or give a "
            f"name that ends in .{stored}"
        )
    for path in paths_of(out, count):
        if path.is_dir():
            raise InvalidSetting(f"-o {path} is a folder: give the name of a file")
        check_writable(path, "-o")


def check_writable(path: Path, option: str) -> None:
    """Raise `InvalidSetting` where a file cannot be created or replaced."""
    folder = path.parent
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise InvalidSetting(f"{option} {path}: {folder} {what}")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise InvalidSetting(f"{option} {path} cannot be written: permission denied")


def paths_of(out: Path, count: int) -> list[Path]:
    """Return `out` for one picture; NAME-0.png and so on for many."""
    return [out] if count == 1 else [out.with_stem(f"{out.stem}-{i}") for i in range(count)]


def write_pictures(pictures: Sequence[tuple[bytes, str]], out: Path) -> list[Path]:
    """Write pictures, given with their media types, in the format of the name of `out`.

    Raises `OutputNotWritable` and `ExtraMissing`.
    """
    paths = paths_of(out, len(pictures))
    for (picture, media_type), path in zip(pictures, paths, strict=True):
        kind = FORMATS[path.suffix.lower()]
        has_it = media_type == f"image/{kind.lower()}"
        write(path, picture if has_it else converted(picture, kind, QUALITY))
    return paths


def write(path: Path, data: bytes, *, follow: bool = True) -> None:
    """Write a file; without `follow`, refuse a symlink. Raises `OutputNotWritable`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | (0 if follow else os.O_NOFOLLOW)
    try:
        with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
            file.write(data)
    except OSError as e:
        raise OutputNotWritable(f"{path} cannot be written: {described(e)}") from e
