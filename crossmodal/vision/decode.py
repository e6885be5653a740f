"""Files of untrusted bytes to upright RGB pixels, with limits that hold before decoding.

Pillow decodes nearly all, rather than OpenCV, because it reads the header alone first, and handles
palettes, 16 bits, alpha, CMYK, the first frame of an animation and EXIF alike.
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

    With a `side`, a large picture will be reduced, to no less than twice that at its shorter
    edge: as good for `fit_square`, and many times smaller; a JPEG while it is decoded, others
    band by band afterwards. Raises as `decode` does, and `MemoryError`.
    """

    def __init__(self, data: bytes, max_pixels: int, side: int | None = None) -> None:
        self._kind, self._side = media_type(data), side
        check_decoder(self._kind)
        with as_invalid(self._kind):
            self._reader: Reader | None = reader_of(self._kind, data, max_pixels, side)
            self.need = self._reader.need

    def pixels(self) -> NDArray[np.uint8]:
        """Upright RGB (H, W, 3); to be asked for once."""
        reader, self._reader = self._reader, None
        assert reader is not None, "the pixels of a picture are asked for once"  # noqa: S101
        with as_invalid(self._kind):
            found = reader.load()
            del reader
            factor = reduction(found.source.width, found.source.height, self._side)
            pixels = rgb(found.source, found.samples, found.convert, factor)
        upright = UPRIGHT.get(found.orientation)
        del found  # its own pixels go, before anybody copies these
        return upright(pixels) if upright else pixels
