"""The memory that decoding a picture needs, estimated from its header.

The figures are those of Pillow and the libraries below it, measured for each format with pictures
of 20 and 50 megapixels; tests/unit/test_decode.py checks them.
"""

from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

BAND = 2**16  # pixels that are converted at once
BAND_BYTES = 120  # per pixel of a band: transparency, colors as floats, and RGB
RGB = 3
PILLOW_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
PILLOW_BYTES_OF_OTHERS = 4  # RGB has a byte of padding
JXL_BYTES, AVIF_BYTES, HEIF_BYTES = 12, 14, 5  # per pixel, beside the decoded ones
START_OF_SCAN = b"\xff\xda"
TIFF_BITS, TIFF_SAMPLES, TIFF_TILE = 258, 277, (322, 323)  # tags


def bytes_needed(image: Image.Image, full_size: tuple[int, int], data: bytes, factor: int) -> int:
    """Return the bytes needed to decode an open image to RGB and a square, beside its file.

    `full_size` is its size before a JPEG's draft mode, `factor` its reduction after decoding.
    """
    stored = PILLOW_BYTES.get(image.mode, PILLOW_BYTES_OF_OTHERS)
    codec = _codec_bytes(image, full_size, data)
    return bytes_needed_of(image.size, stored, codec, factor)


def bytes_needed_of(size: tuple[int, int], stored: int, codec: int, factor: int) -> int:
    """Return the bytes needed to decode an image of `stored` bytes a pixel to RGB and a square.

    `codec` are the bytes that its decoder needs beside the decoded pixels.
    """
    pixels = size[0] * size[1]
    made = pixels // factor**2 * RGB
    bands = max(BAND, size[0] * factor) * BAND_BYTES
    return max(pixels * stored + max(codec, made), 2 * made) + bands


def _codec_bytes(image: Image.Image, full_size: tuple[int, int], data: bytes) -> int:
    """Return the bytes that a decoder needs beside the image that it fills."""
    pixels = full_size[0] * full_size[1]
    match image:
        case TiffImageFile():
            return _strip_bytes(image, pixels) + len(data)
        case JpegImageFile() if _has_scans(image, data):
            return pixels * _coefficient_bytes(image)
        case AvifImageFile():
            return pixels * AVIF_BYTES + 2 * len(data)
    return pixels * HEIF_BYTES + 2 * len(data) if image.format == "HEIF" else 0


def _strip_bytes(image: TiffImageFile, pixels: int) -> int:
    """Return the bytes of a TIFF's largest part, enough also to turn the picture upright later.

    One strip may be all of the picture, and a tile may be larger.
    """
    width, height = (int(image.tag_v2.get(tag, 0)) for tag in TIFF_TILE)
    bits = image.tag_v2.get(TIFF_BITS, 1)
    deepest = max(bits) if isinstance(bits, tuple) else int(bits)
    samples = int(image.tag_v2.get(TIFF_SAMPLES, 1))
    return max(pixels, width * height) * max(4, samples * deepest // 8)


def _has_scans(image: JpegImageFile, data: bytes) -> bool:
    """Return whether a JPEG has several scans: all coefficients are kept until the last one."""
    start = data.rfind(START_OF_SCAN, 0, image.fp.tell() if image.fp else len(data))
    components_of_first = data[start + 4]
    return bool("progressive" in image.info or components_of_first < len(image.layer))


def _coefficient_bytes(image: JpegImageFile) -> int:
    """Return the bytes of coefficients per pixel, rounded up to allow for blocks at the edges."""
    full = max(h for _, h, _, _ in image.layer) * max(v for _, _, v, _ in image.layer)
    return -(-2 * sum(h * v for _, h, v, _ in image.layer) // full)
