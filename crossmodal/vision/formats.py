"""The decoder of each format, and the translation of its errors to `InvalidImage`."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import cv2
from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from crossmodal.errors import InvalidImage
from crossmodal.extras import is_installed, remedy
from crossmodal.vision.media import REMEDY, named

# What decoders raise for broken files. Not `Exception` or `MemoryError`: these need not be due to
# the file.
DECODERS_RAISE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    struct.error,
    zlib.error,
    cv2.error,
)
PILLOW: dict[str, Callable[[io.BytesIO], Image.Image]] = {
    "image/png": PngImageFile,
    "image/jpeg": JpegImageFile,
    "image/gif": GifImageFile,
    "image/bmp": BmpImageFile,
    "image/tiff": TiffImageFile,
    "image/avif": AvifImageFile,
}
EXTRAS = {"image/heic": "heif", "image/jxl": "jxl"}
CUT_OFF = (
    "truncat",
    "broken data stream",
    "unexpected end",
    "end of file",
    "eof",
    "too short",
    "invalid input",
    "no more",
    "not enough",
)
REMEDY_SAID = REMEDY[0].upper() + REMEDY[1:]
UNSUPPORTED = ("nsupported", "not supported", "unknown", "not yet", "cannot handle")


def check_decoder(kind: str) -> None:
    """Raise `InvalidImage` if the decoder of a format is not installed here."""
    extra = EXTRAS.get(kind)
    if extra is not None and not is_installed(extra):
        raise InvalidImage(
            f"the image is {named(kind)}, which this worker cannot decode: {REMEDY}. Or install "
            f"its decoder on the worker: {remedy(extra)}"
        )


def opened(kind: str, file: io.BytesIO) -> Image.Image:
    """Open a file and read its header; a JPEG XL is decoded, too."""
    match kind:
        case "image/heic":
            plugin = import_module("pillow_heif")
            plugin.options.DECODE_THREADS = 1
            plugin.options.THUMBNAILS = plugin.options.AUX_IMAGES = False
            return _image(plugin.HeifImageFile(file))
        case "image/jxl":
            plugin = import_module("pillow_jxl.JpegXLImagePlugin")
            vars(plugin)["DECODE_THREADS"] = 0
            return _image(plugin.JXLImageFile(file))
    return PILLOW[kind](file)


def _image(made: Any) -> Image.Image:
    """Narrow the type of an image that an extra's class made."""
    assert isinstance(made, Image.Image)  # noqa: S101
    return made


@contextmanager
def as_invalid(kind: str) -> Iterator[None]:
    """Turn a decoder's errors into `InvalidImage`, with a message for the file's sender."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata: only pixels matter
            yield
    except DECODERS_RAISE as e:
        raise InvalidImage(_told(kind, e)) from e


def not_supported(kind: str) -> InvalidImage:
    """Return the error for a variety of a format that is not decoded, or not correctly."""
    return InvalidImage(
        f"the image is {named(kind)} that cannot be decoded: it is of a variety that is not "
        f"supported. {REMEDY_SAID}"
    )


def _told(kind: str, error: BaseException) -> str:
    """Return a message by keywords of the decoder's own one, which is not passed on."""
    said, head = str(error).lower(), f"the image is {named(kind)} that cannot be decoded:"
    if any(word in said for word in UNSUPPORTED):
        return str(not_supported(kind))
    if isinstance(error, EOFError) or any(word in said for word in CUT_OFF):
        return f"{head} it is truncated or damaged. Send the whole file"
    if "decoder error" in said:  # from libtiff, which gives no reason
        return f"{head} it is damaged, or of a variety that is not supported. {REMEDY_SAID}"
    return f"{head} it is damaged. {REMEDY_SAID}"
