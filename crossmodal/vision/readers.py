"""Readers of image files: each checks the header first, and decodes when told to."""

import io
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from PIL import ExifTags, Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from crossmodal.errors import ImageTooLarge
from crossmodal.vision import bmp, coded, color, gif, jpeg, png, tiff, webp
from crossmodal.vision.formats import DECODERS_RAISE, not_supported, opened
from crossmodal.vision.header import (
    JXL_BYTES,
    PILLOW_BYTES_OF_OTHERS,
    bytes_needed,
    bytes_needed_of,
)
from crossmodal.vision.jxl import jxl_size
from crossmodal.vision.pixels import Box, Samples, Source, reduction, source_of


class Picture(NamedTuple):
    """A decoded picture, with its orientation and its conversion to sRGB."""

    source: Source
    orientation: int
    convert: color.Convert | None
    samples: Samples = Samples()


class Reader(Protocol):
    """A file whose header is read; decoding it takes `need` bytes beside it."""

    need: int

    def load(self) -> Picture:
        """Decode the file. May be called once."""


def reader_of(kind: str, data: bytes, max_pixels: int, side: int | None) -> Reader:
    """Open a file. Raises `ImageTooLarge`, `InvalidImage` and decoders' errors."""
    match kind:
        case "image/webp":
            return WebpReader(data, max_pixels, side)
        case "image/jxl":
            return JxlReader(data, max_pixels, side)
        case "image/png":
            return PngReader(data, max_pixels, side)
    return PillowReader(kind, data, max_pixels, side)


class PillowReader:
    """A file of a format whose header Pillow reads without decoding."""

    def __init__(self, kind: str, data: bytes, max_pixels: int, side: int | None) -> None:
        self._kind, self._data = kind, _without_notes(kind, data)
        self._draft = None if side is None else (2 * side, 2 * side)
        if kind == "image/jpeg" and jpeg.is_lossless(self._data):
            self._draft = None
        self._image = opened(kind, io.BytesIO(self._data))
        self._samples = Samples()
        _check_pixels(*self._image.size, max_pixels)
        if isinstance(self._image, TiffImageFile):
            _check_pixels(*tiff.tile_size(self._image), max_pixels)
            self._samples = tiff.amend(self._image)
        self._frame = _frame_of(self._image)
        full_size = self._image.size
        if self._draft is not None and isinstance(self._image, JpegImageFile):
            self._image.draft("RGB", self._draft)
        factor = reduction(*self._image.size, side)
        self.need = bytes_needed(self._image, full_size, self._data, factor)

    def load(self) -> Picture:
        image = self._loaded()
        if isinstance(image, BmpImageFile):
            _check_rows(image, self._data)
        # Many programs leave the fourth byte of a BMP's pixels at zero.
        is_opaque = isinstance(image, BmpImageFile) and _is_all_clear(image)
        convert = color.conversion(*self._colors(image), image.mode)
        source = source_of(image, is_opaque, self._frame)
        return Picture(source, orientation_of(image), convert, self._samples)

    def _colors(self, image: Image.Image) -> tuple[bytes | None, coded.Coded | None]:
        """Return the file's ICC profile or its color space by numbers."""
        if isinstance(image, BmpImageFile):
            return bmp.profile_of(self._data), None
        profile = image.info.get("icc_profile")
        if not profile and self._kind in ("image/avif", "image/heic"):
            return None, coded.of_boxes(self._data)
        return profile, None

    def _loaded(self) -> Image.Image:
        image = self._image
        try:
            image.load()
        except OSError:
            del self._image
            if not isinstance(image, JpegImageFile):
                raise
            del image  # frees its pixels before others are decoded
            completed = jpeg.completed(self._data, self._draft)
            if completed is None:
                raise
            return completed
        return image


class PngReader:
    """A PNG; Pillow decodes its pixels, color and orientation are read here."""

    def __init__(self, data: bytes, max_pixels: int, side: int | None) -> None:
        self._notes, self._data = png.notes(data), png.only_pixels(data)
        self._image = opened("image/png", io.BytesIO(self._data))
        _check_pixels(*self._image.size, max_pixels)
        self._clear = png.deep_clear_color(self._image, data)
        factor = reduction(*self._image.size, side)
        twice = 1 if self._clear is None else 2
        self.need = twice * bytes_needed(self._image, self._image.size, data, factor)

    def load(self) -> Picture:
        self._image.load()
        profile, numbers = png.colors_of(self._notes)
        source = source_of(self._image)
        if self._clear is not None:
            low = png.lower_bytes(opened("image/png", io.BytesIO(self._data)))
            source = png.with_clear_color(self._image, low, self._clear)
        convert = color.conversion(profile, numbers, self._image.mode)
        return Picture(source, _orientation(png.exif_of(self._notes)), convert)


class WebpReader:
    """A WebP; OpenCV decodes its pixels, its other chunks are read here."""

    def __init__(self, data: bytes, max_pixels: int, side: int | None) -> None:
        self._data, size = data, webp.webp_size(data)
        if size is None:
            raise ValueError("truncated header")
        _check_pixels(*size, max_pixels)
        stored = webp.bands(data)
        codec = stored * size[0] * size[1] + 2 * len(data)
        self.need = bytes_needed_of(size, stored, codec, reduction(*size, side))

    def load(self) -> Picture:
        notes: Mapping[bytes, bytes] = webp.notes(self._data)
        convert = color.conversion(notes.get(b"ICCP"), None, "RGB")
        return Picture(webp.decoded(self._data), _orientation(notes.get(b"EXIF", b"")), convert)


class JxlReader:
    """A JPEG XL; its header is read here, since its decoder decodes all as it opens the file."""

    def __init__(self, data: bytes, max_pixels: int, side: int | None) -> None:
        self._data, size = data, jxl_size(data)
        if size is None:
            raise ValueError("truncated header")
        _check_pixels(*size, max_pixels)
        self._max_pixels = max_pixels
        codec = JXL_BYTES * size[0] * size[1] + 2 * len(data)
        self.need = bytes_needed_of(size, PILLOW_BYTES_OF_OTHERS, codec, reduction(*size, side))

    def load(self) -> Picture:
        image = opened("image/jxl", io.BytesIO(self._data))
        image.load()
        # The decoder applies the orientation, unless it restored the original JPEG.
        orientation = orientation_of(image) if getattr(image, "jpeg", False) else 1
        profile = image.info.get("icc_profile")
        if image.mode != "CMYK" and color.is_of_inks(profile):  # three of four channels
            raise not_supported("image/jxl")
        convert = color.conversion(profile, None, image.mode)
        return Picture(source_of(image), orientation, convert)


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"the image is {width} × {height} = {width * height} pixels, {max_pixels} are "
            "allowed: shrink it, or raise CROSSMODAL_MAX_IMAGE_PIXELS"
        )


def _without_notes(kind: str, data: bytes) -> bytes:
    """Return the file without metadata that could make a decoder fail."""
    match kind:
        case "image/gif":
            return gif.only_pixels(data)
        case "image/jpeg":
            return jpeg.without_stubs(data)
    return data


def _frame_of(image: Image.Image) -> Box | None:
    """Return the box of a GIF's first frame, or None if it fills the picture."""
    if not isinstance(image, GifImageFile) or not image.tile:
        return None
    frame = image.tile[0].extents
    return None if frame == (0, 0, *image.size) else frame


def _check_rows(image: BmpImageFile, data: bytes) -> None:
    compression = image.info.get("compression", 0)
    is_of_runs = compression in (bmp.RUNS, bmp.RUNS_OF_HALVES)
    if is_of_runs and bmp.has_long_rows(data, image.width, int(compression)):
        raise not_supported("image/bmp")


def _is_all_clear(image: Image.Image) -> bool:
    return image.mode == "RGBA" and image.getextrema()[-1] == (0, 0)


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an image; 1, upright, if it cannot be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except DECODERS_RAISE:
        return 1


def _orientation(data: bytes) -> int:
    """Return the orientation in EXIF data; 1, upright, if they are broken."""
    exif = Image.Exif()
    try:
        exif.load(data)
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except DECODERS_RAISE:
        return 1
