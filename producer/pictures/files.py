"""Conversion of an app's pictures, in any supported form, to the bytes of a file.

Pillow images and NumPy arrays are recognized by their attributes: neither library is imported.
"""

import inspect
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any, Protocol

from crossmodal.errors import ImageTooLarge, InvalidImage, described
from crossmodal.files import open_regular
from crossmodal.kinds.fields import BlobRef
from crossmodal.vision.media import check_size
from producer.pictures.png import COLOR_TYPES, write_png


class BinaryFile(Protocol):
    """An open binary file, an upload or an `io.BytesIO`; read from its current position."""

    def read(self, size: int, /) -> bytes: ...


class PillowImage(Protocol):
    """A `PIL.Image.Image`."""

    @property
    def mode(self) -> str: ...
    @property
    def size(self) -> tuple[int, int]: ...
    def getexif(self) -> Any: ...
    def convert(self, mode: str) -> Any: ...
    def save(self, fp: Any, format: str | None = None, **params: Any) -> None: ...


class PixelArray(Protocol):
    """A `numpy.ndarray` of uint8: gray (H, W), RGB (H, W, 3) or RGBA (H, W, 4)."""

    @property
    def shape(self) -> Any: ...
    @property
    def dtype(self) -> Any: ...
    def tobytes(self) -> bytes: ...


FileBytes = bytes | bytearray | memoryview
Picture = FileBytes | str | os.PathLike[str] | BinaryFile | PillowImage | PixelArray | BlobRef
"""A picture: the bytes of a file, its path, an open binary file, a Pillow image, a NumPy
array of uint8, or a stored blob."""

EXPECTED = (
    "the bytes of a picture's file, its path, a file opened with 'rb', a PIL image, a NumPy array "
    "of uint8, or a BlobRef"
)
PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")
PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}  # mode that keeps the transparency
DEEP_MODES = ("I", "I;16B", "I;16L", "I;16N")  # sixteen bits in one channel
PILLOW_RAISES = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
)


def is_picture(value: Any) -> bool:
    """Whether a value is a single picture."""
    if isinstance(value, FileBytes | str | os.PathLike | BlobRef):
        return True
    return _is_file(value) or _is_pillow(value) or _is_array(value)


def bytes_of(image: Any, max_bytes: int) -> bytes:
    """Return a picture as the bytes of a file.

    Raises `ImageTooLarge`, and `InvalidImage` for what cannot be read or is no picture.
    """
    if isinstance(image, FileBytes):
        data = bytes(image)
    elif isinstance(image, str | os.PathLike):
        data = _read_path(image, max_bytes)
    elif _is_pillow(image):
        data = _save(image)
    elif _is_array(image):
        data = _encode(image)
    elif _is_file(image):
        data = _read(image, max_bytes)
    else:
        raise InvalidImage(f"a picture cannot be {_named(image)}: give {EXPECTED}")
    check_size(len(data), max_bytes)
    return data


def _is_file(value: Any) -> bool:
    return callable(getattr(value, "read", None))


def _is_pillow(value: Any) -> bool:
    return all(hasattr(value, name) for name in ("mode", "size", "getexif", "convert", "save"))


def _is_array(value: Any) -> bool:
    return all(hasattr(value, name) for name in ("shape", "dtype", "tobytes"))


def _named(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


def _read_path(path: str | os.PathLike[Any], max_bytes: int) -> bytes:
    name = os.fsdecode(path)
    if not name:
        raise InvalidImage("the picture's path is empty: give the path of its file")
    if name.startswith(("http://", "https://", "data:")):
        raise InvalidImage(
            f"the picture {name[:80]} is a URL, and nothing is fetched here: give its bytes"
        )
    try:
        with open_regular(Path(name)) as file:
            check_size(os.fstat(file.fileno()).st_size, max_bytes)
            return _read(file, max_bytes)
    except (OSError, ValueError) as e:  # ValueError: no file can have such a name
        raise InvalidImage(f"the picture {name[:400]} cannot be read: {described(e)}") from e


def _read(file: Any, max_bytes: int) -> bytes:
    """Read the rest of a file; stop after `max_bytes` and one piece."""
    if isinstance(file, io.TextIOBase):
        raise InvalidImage("the picture's file was opened as text: open it with 'rb'")
    if inspect.iscoroutinefunction(file.read):
        raise InvalidImage(
            "the picture's file is asynchronous: give `await file.read()`, its bytes"
        )
    found = bytearray()
    try:
        while piece := file.read(max_bytes + 1 - len(found)):
            found += piece
    except TypeError as e:
        raise InvalidImage(
            f"the picture's file gave no bytes: {e}. Give one that was opened with 'rb'"
        ) from e
    except (OSError, ValueError, EOFError, zlib.error) as e:
        # ValueError: the file is closed. The last two: gzip.open, for a damaged file.
        raise InvalidImage(f"the picture's file cannot be read: {e}") from e
    if len(found) > max_bytes:
        raise ImageTooLarge(
            f"the image has more than the {max_bytes} bytes that are allowed: "
            "shrink it, or raise CROSSMODAL_MAX_IMAGE_BYTES"
        )
    return bytes(found)


def _save(image: Any) -> bytes:
    """Return a Pillow image as PNG, with its EXIF data, for its orientation."""
    if image.mode == "F":
        raise InvalidImage("a picture cannot be a PIL image of floats: convert it to 'RGB'")
    file = io.BytesIO()
    try:
        exif = image.getexif()
        _writable(image).save(file, "PNG", compress_level=1, **({"exif": exif} if exif else {}))
    except PILLOW_RAISES as e:
        raise InvalidImage(
            f"a picture cannot be a PIL image of mode {image.mode}, which cannot be written as "
            "PNG: convert it to 'RGB'"
        ) from e
    return file.getvalue()


def _writable(image: Any) -> Any:
    if image.mode in PNG_MODES:
        return image
    if image.mode in DEEP_MODES:
        return image.convert("I").convert("I;16")
    return image.convert(PREMULTIPLIED.get(image.mode, "RGB"))


def _encode(array: Any) -> bytes:
    """Return an array of pixels as PNG."""
    shape = tuple(array.shape)
    height, width, channels = (
        shape if len(shape) == 3 else (*shape, 1) if len(shape) == 2 else (0,) * 3
    )
    if str(array.dtype) != "uint8" or channels not in COLOR_TYPES or not (height and width):
        raise InvalidImage(
            f"a picture cannot be an array of {array.dtype} with shape {shape}: give uint8, 0 to "
            "255, as (H, W), (H, W, 3) or (H, W, 4)"
            + (
                " - for floats from 0 to 1: (255 * a).round().astype('uint8')"
                if str(array.dtype).startswith("float")
                else ""
            )
        )
    return write_png(array.tobytes(), height, width, channels)
