"""Files of untrusted bytes to upright RGB pixels, with limits that hold before decoding.

Pillow decodes, rather than OpenCV, because it reads the header alone first, and handles
palettes, 16 bits, alpha, CMYK, the first frame of an animation and EXIF alike.
"""

import io
import struct
import warnings
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from crossmodal.errors import ImageTooLarge, InvalidImage
from crossmodal.vision.media import media_type

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
TILE_SIDES = (322, 323)  # tags of a TIFF
DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")  # sixteen bits in one channel

# What broken files make Pillow's plugins raise. Not `Exception`: the pool's time limit is one.
PILLOW_RAISES = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError,
    ArithmeticError, AssertionError, MemoryError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip

# Our own limit, a setting, is checked on the header; Pillow's would only warn.
Image.MAX_IMAGE_PIXELS = None


def decode(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Upright RGB (H, W, 3) of the first frame, transparency flattened on white.

    Raises `ImageTooLarge` from the header alone, before any pixel is decoded, and
    `InvalidImage` for bytes that are no image or only part of one.
    """
    media_type(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata: only pixels are asked for
            return _decoded(data, max_pixels)
    except PILLOW_RAISES as e:
        raise InvalidImage(f"the image cannot be decoded: {e}") from e


def _decoded(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_pixels(image.width, image.height, max_pixels)
        if isinstance(image, TiffImageFile):  # a tile is decoded whole, and may be larger
            width, height = (int(image.tag_v2.get(tag, 0)) for tag in TILE_SIDES)
            _check_pixels(width, height, max_pixels)
        image.load()
        return np.asarray(_upright_rgb(image), np.uint8)


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"the image is {width} × {height} = {width * height} pixels, {max_pixels} are "
            "allowed: shrink it, or raise CROSSMODAL_MAX_IMAGE_PIXELS"
        )


def _upright_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode in DEEP_MODES:
        deep = np.asarray(image) >> 8
        return Image.fromarray(deep.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
