"""Decoding of untrusted image files to upright RGB, with limits checked before decoding.

Pillow, not OpenCV, decodes nearly all formats: it can read the header alone, and handles palettes,
16 bits, alpha, CMYK, the first frame of an animation, and EXIF (ADR 0006).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossmodal.errors import InvalidImage
from crossmodal.vision.formats import as_invalid, check_decoder
from crossmodal.vision.media import media_type
from crossmodal.vision.pixels import reduction, rgb
from crossmodal.vision.readers import Reader, reader_of

# Views of an array that undo each EXIF orientation.
UPRIGHT: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}

# The limit is a setting, checked on the header; Pillow's own would only warn.
Image.MAX_IMAGE_PIXELS = None


def decode(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Return the first frame as upright RGB (H, W, 3), transparency flattened on white.

    Raises `ImageTooLarge` from the header alone, before any pixel is decoded, and
    `InvalidImage` for bytes that are not an image, or only part of one.
    """
    try:
        return PictureFile(data, max_pixels).pixels()
    except MemoryError as e:
        raise InvalidImage("the image cannot be decoded: there is not enough memory") from e


class PictureFile:
    """An image file whose header is read, but no pixel is decoded yet.

    With a `side`, a large picture is reduced to no less than twice that at its shorter edge,
    which is as good for `fit_square` and needs much less memory: a JPEG while it is decoded,
    others band by band afterwards. Raises as `decode` does, and `MemoryError`.
    """

    def __init__(self, data: bytes, max_pixels: int, side: int | None = None) -> None:
        self._kind, self._side = media_type(data), side
        check_decoder(self._kind)
        with as_invalid(self._kind):
            self._reader: Reader | None = reader_of(self._kind, data, max_pixels, side)
            self.need = self._reader.need

    def pixels(self) -> NDArray[np.uint8]:
        """Decode to upright RGB (H, W, 3). May be called once."""
        reader, self._reader = self._reader, None
        assert reader is not None, "the pixels of a picture are asked for once"  # noqa: S101
        with as_invalid(self._kind):
            found = reader.load()
            del reader
            factor = reduction(found.source.width, found.source.height, self._side)
            pixels = rgb(found.source, found.samples, found.convert, factor)
        upright = UPRIGHT.get(found.orientation)
        del found  # frees its pixels before the caller copies these
        return upright(pixels) if upright else pixels
