"""Conversion of a decoded picture to 8-bit sRGB on white, reduced where it is too large."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageCms

from crossmodal.errors import InvalidImage
from crossmodal.vision.color import Convert
from crossmodal.vision.header import BAND
from crossmodal.vision.media import REMEDY

DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N")  # one channel of 16 bits
MOST = 8  # the max reduction, that of JPEG's draft mode
WHITE = (255, 255, 255, 255)

Box = tuple[int, int, int, int]
"""Left, top, right and bottom of a part of a picture."""


class Samples(NamedTuple):
    """The meaning of samples of more than 8 bits in one channel."""

    bits: int = 16
    is_inverted: bool = False  # white is zero


class Source(NamedTuple):
    """A decoded picture that is read in bands of rows."""

    width: int
    height: int
    crop: Callable[[int, int], Image.Image]
    """Returns the rows from the first argument up to, and without, the second."""


def source_of(image: Image.Image, is_opaque: bool = False, frame: Box | None = None) -> Source:
    """Return a Pillow image as a source, without its alpha if it `is_opaque`.

    Outside its `frame`, if it has one, it is transparent.
    """

    def crop(top: int, end: int) -> Image.Image:
        band = image.crop((0, top, image.width, end))
        if frame is not None:
            return _framed(band, frame, top)
        return band.convert("RGB") if is_opaque else band

    return Source(image.width, image.height, crop)


def _framed(band: Image.Image, frame: Box, top: int) -> Image.Image:
    left, above, right, below = frame
    inside = Image.new("L", band.size, 0)
    inside.paste(255, (left, max(0, above - top), right, max(0, min(band.height, below - top))))
    found = band.convert("RGBA")
    found.putalpha(ImageChops.multiply(found.getchannel("A"), inside))
    return found


def rgb(
    source: Source, samples: Samples, convert: Convert | None, factor: int = 1
) -> NDArray[np.uint8]:
    """Return a picture as RGB (H, W, 3), each `factor` × `factor` pixels averaged to one.

    Works in bands, so that the conversions do not need three times the picture's memory.
    """
    rows = max(1, BAND // source.width // factor) * factor
    size = -(-source.height // factor), -(-source.width // factor), 3
    pixels = np.empty(size, np.uint8)
    for top in range(0, source.height, rows):
        band = source.crop(top, min(source.height, top + rows))
        flat = _flat(_shallow(band, samples), convert)
        made = np.asarray(flat.reduce(factor) if factor > 1 else flat, np.uint8)
        pixels[top // factor :][: len(made)] = made
    return pixels


def reduction(width: int, height: int, side: int | None) -> int:
    """Return the factor that reduces the shorter edge to no less than twice `side`."""
    return 1 if side is None else min(MOST, max(1, min(width, height) // (2 * side)))


def _flat(image: Image.Image, convert: Convert | None) -> Image.Image:
    if convert is not None:
        image = convert(image)
    if image.has_transparency_data:
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image)
    if image.mode == "LAB":
        return _of_lab(image)
    return image.convert("RGB")


def _of_lab(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    found = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert found is not None  # noqa: S101 - None only for a conversion in place
    return found


def _shallow(image: Image.Image, samples: Samples) -> Image.Image:
    """Return the upper 8 bits of deeper samples; other images unchanged."""
    if image.mode == "F":
        return _of_floats(image, samples)
    if image.mode not in DEEP_MODES:
        return image
    deep = np.asarray(image)
    upper = (deep >> (samples.bits - 8)).clip(0, 255).astype(np.uint8)
    grey = Image.fromarray(255 - upper if samples.is_inverted else upper)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(deep == clear, 0, 255).astype(np.uint8)))
    return grey


def _of_floats(image: Image.Image, samples: Samples) -> Image.Image:
    values = np.asarray(image)
    if not ((values >= 0) & (values <= 1)).all():
        raise InvalidImage(
            "the image has floating-point samples outside 0 to 1, which are not supported: "
            + REMEDY
        )
    grey = (values * 255).round().astype(np.uint8)
    return Image.fromarray(255 - grey if samples.is_inverted else grey)
