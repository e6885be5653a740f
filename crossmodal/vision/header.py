"""What the header of a picture says of the memory that its pixels will need.

The figures are those of Pillow and the libraries below it, measured for each format with pictures
of 20 and 50 megapixels: tests/unit/test_decode.py holds them to it.
"""

import io

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

BAND = 2**18  # pixels that are converted at once
BAND_BYTES = 24  # a pixel of them: with transparency, four pictures of four bytes, and RGB
RGB = 3
PILLOW_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
PILLOW_BYTES_OF_OTHERS = 4  # RGB has a byte of padding
WEBP_CANVAS = 12  # a pixel: two frames of its decoder, and one that Python is given
START_OF_SCAN = b"\xff\xda"
TIFF_BITS, TIFF_SAMPLES, TIFF_TILE = 258, 277, (322, 323)  # tags


def bytes_needed(image: Image.Image, full_size: tuple[int, int], file: io.BytesIO) -> int:
    """Memory for decoding an image that is open, beside its file, to RGB and to a square.

    `full_size` is what it had before it was to be reduced.
    """
    pixels = image.width * image.height
    stored = PILLOW_BYTES.get(image.mode, PILLOW_BYTES_OF_OTHERS)
    load = pixels * stored + _codec_bytes(image, full_size, file)
    convert = pixels * (stored + RGB)
    crop = pixels * (RGB + RGB)
    return max(load, convert, crop) + max(BAND, image.width) * BAND_BYTES


def _codec_bytes(image: Image.Image, full_size: tuple[int, int], file: io.BytesIO) -> int:
    """What a decoder needs beside the image that it fills."""
    pixels, file_bytes = full_size[0] * full_size[1], len(file.getvalue())
    match image:
        case WebPImageFile():
            return pixels * WEBP_CANVAS + 2 * file_bytes
        case TiffImageFile() if image.info.get("compression") != "raw":
            return _strip_bytes(image, pixels) + file_bytes
        case TiffImageFile():
            return pixels * PILLOW_BYTES_OF_OTHERS  # it is turned upright while it is loaded
        case JpegImageFile() if _has_scans(image, file):
            return pixels * _coefficient_bytes(image)
    return 0


def _strip_bytes(image: TiffImageFile, pixels: int) -> int:
    """All of a TIFF may be one strip, or a tile that is larger. Then it may be turned upright."""
    width, height = (int(image.tag_v2.get(tag, 0)) for tag in TIFF_TILE)
    bits = image.tag_v2.get(TIFF_BITS, 1)
    deepest = max(bits) if isinstance(bits, tuple) else int(bits)
    samples = int(image.tag_v2.get(TIFF_SAMPLES, 1))
    return max(pixels, width * height) * max(4, samples * deepest // 8)


def _has_scans(image: JpegImageFile, file: io.BytesIO) -> bool:
    """Whether each pixel comes in several scans: all coefficients are kept until the last one."""
    start = file.getvalue().rfind(START_OF_SCAN, 0, file.tell())
    components_of_first = file.getvalue()[start + 4]
    return bool("progressive" in image.info or components_of_first < len(image.layer))


def _coefficient_bytes(image: JpegImageFile) -> int:
    """Bytes a pixel of coefficients; a whole number, as blocks at the edges are kept too."""
    full = max(h for _, h, _, _ in image.layer) * max(v for _, _, v, _ in image.layer)
    return -(-2 * sum(h * v for _, h, v, _ in image.layer) // full)


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP's canvas: Pillow takes memory for it when it opens the file."""
    chunk, head = data[12:16], data[20:30]
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(head) < 10:
        return None
    match chunk:
        case b"VP8X":
            return 1 + _number(head[4:7]), 1 + _number(head[7:10])
        case b"VP8L":
            bits = _number(head[1:5])
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            return _number(head[6:8]) & 0x3FFF, _number(head[8:10]) & 0x3FFF
    return None


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")
