"""Files of untrusted bytes to upright RGB pixels, with limits that hold before decoding.

Pillow decodes, rather than OpenCV, because it reads the header alone first, and handles
palettes, 16 bits, alpha, CMYK, the first frame of an animation and EXIF alike.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile

from crossmodal.errors import ImageTooLarge, InvalidImage
from crossmodal.vision.header import BAND, bytes_needed, webp_size
from crossmodal.vision.media import media_type

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
TILE_SIDES = (322, 323)  # tags of a TIFF
DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")  # sixteen bits in one channel

# What broken files make Pillow's plugins raise. Not `Exception`, nor `MemoryError`: those say
# nothing of the file.
PILLOW_RAISES = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError,
    ArithmeticError, AssertionError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip

# Views of an array that turn upright what a camera noted as EXIF's orientation.
UPRIGHT: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}

# Our own limit, a setting, is checked on the header; Pillow's would only warn.
Image.MAX_IMAGE_PIXELS = None


def decode(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Upright RGB (H, W, 3) of the first frame, transparency flattened on white.

    Raises `ImageTooLarge` from the header alone, before any pixel is decoded, and
    `InvalidImage` for bytes that are no image or only part of one.
    """
    try:
        return PictureFile(data, max_pixels).pixels()
    except MemoryError as e:
        raise InvalidImage("the image cannot be decoded: there is not enough memory") from e


class PictureFile:
    """An image file of which the header is read, and no pixel is decoded yet.

    With a `side`, a large JPEG will be decoded reduced, to no less than twice that at its shorter
    edge: as good for `fit_square`, and up to 64 times smaller. Raises as `decode` does, and
    `MemoryError`.
    """

    def __init__(self, data: bytes, max_pixels: int, side: int | None = None) -> None:
        media_type(data)
        self._file = io.BytesIO(data)
        with _as_invalid():
            _check_canvas(data, max_pixels)
            self._image = Image.open(self._file, formats=FORMATS)
            _check_pixels(self._image.width, self._image.height, max_pixels)
            self._check_tile(max_pixels)
            full_size = self._image.size
            if side is not None:
                self._image.draft("RGB", (2 * side, 2 * side))
            self.need = bytes_needed(self._image, full_size, self._file)

    def pixels(self) -> NDArray[np.uint8]:
        """Upright RGB (H, W, 3); to be asked for once."""
        with _as_invalid(), self._image as image:
            image.load()
            upright = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
            pixels = _rgb(image)
        image.close()  # its own pixels go, before anybody copies these
        return upright(pixels) if upright else pixels

    def _check_tile(self, max_pixels: int) -> None:
        """Check the tiles of a TIFF: one is decoded whole, and may be larger than the picture."""
        if isinstance(self._image, TiffImageFile):
            width, height = (int(self._image.tag_v2.get(tag, 0)) for tag in TILE_SIDES)
            _check_pixels(width, height, max_pixels)


@contextmanager
def _as_invalid() -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata: only pixels are asked for
            yield
    except PILLOW_RAISES as e:
        raise InvalidImage(f"the image cannot be decoded: {e}") from e


def _check_canvas(data: bytes, max_pixels: int) -> None:
    """Check the canvas of a WebP: memory for it is taken as soon as Pillow opens the file."""
    if size := webp_size(data):
        _check_pixels(*size, max_pixels)


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"the image is {width} × {height} = {width * height} pixels, {max_pixels} are "
            "allowed: shrink it, or raise CROSSMODAL_MAX_IMAGE_PIXELS"
        )


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """RGB of an image, made in bands, so that its conversions do not need its memory thrice."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        bottom = min(image.height, top + rows)
        pixels[top:bottom] = _flat(image.crop((0, top, image.width, bottom)))
    return pixels


def _flat(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode in DEEP_MODES:
        deep = np.asarray(image) >> 8
        return np.asarray(deep.clip(0, 255), np.uint8)[..., np.newaxis]
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, image).convert("RGB"), np.uint8)
    return np.asarray(image.convert("RGB"), np.uint8)
