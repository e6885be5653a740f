"""The chunks of a PNG: those that its pixels need, and those of color and orientation.

All others, as texts, are removed before decoding, so that a fault in them fails no picture.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile

from crossmodal.vision.coded import Coded, of_code_points, of_gamma
from crossmodal.vision.pixels import Source

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TRANSPARENCY: dict[int, int] = {0: 2, 2: 6, 3: 1}  # color type: min bytes of tRNS
BIT_DEPTH, COLOR_TYPE = 24, 25  # offsets in a file
MAX_INFLATED = 2**24  # bytes of a profile, or of EXIF data as text
RAW_EXIF = re.compile(rb"Raw profile type (exif|APP1)\x00", re.IGNORECASE)
NOT_HEX = re.compile(rb"[^0-9a-fA-F]")
NOTED = (b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"eXIf", b"tEXt", b"zTXt")


class Chunk(NamedTuple):
    """A chunk, and its position in the file."""

    kind: bytes
    start: int
    end: int
    body: memoryview
    is_whole: bool


def chunks(data: bytes) -> Iterator[Chunk]:
    """Yield the chunks of a PNG up to IEND; the last one may be truncated."""
    view, start = memoryview(data), len(SIGNATURE)
    while start + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        end = start + 12 + length
        kind = data[start + 4 : start + 8]
        yield Chunk(kind, start, end, view[start + 8 : end - 4], end <= len(data))
        if kind == b"IEND":
            return
        start = end


def only_pixels(data: bytes) -> bytes:
    """Return the file without the chunks that no pixel needs; a truncated one stays so."""
    kept = [(c.start, c.end) for c in chunks(data) if _is_for_pixels(c, data)]
    if sum(end - start for start, end in kept) == len(data) - len(SIGNATURE):
        return data
    view = memoryview(data)
    return b"".join([SIGNATURE, *(view[start:end] for start, end in kept)])


def _is_for_pixels(chunk: Chunk, data: bytes) -> bool:
    """Return whether a chunk is critical (its first letter is upper case), or a sound tRNS."""
    if chunk.kind == b"tRNS":
        least = TRANSPARENCY.get(data[COLOR_TYPE], len(chunk.body) + 1)
        return len(chunk.body) >= least and _is_sound(chunk, data)
    return not chunk.kind[:1].islower()


def notes(data: bytes) -> dict[bytes, bytes]:
    """Return the bodies of sound chunks: of color before the pixels, of EXIF anywhere."""
    found: dict[bytes, bytes] = {}
    has_pixels = False
    for chunk in chunks(data):
        has_pixels = has_pixels or chunk.kind == b"IDAT"
        wanted = (b"eXIf", b"tEXt", b"zTXt") if has_pixels else NOTED
        if chunk.kind not in wanted or not _is_sound(chunk, data):
            continue
        if chunk.kind in (b"tEXt", b"zTXt"):
            if exif := _raw_exif(chunk):
                found.setdefault(b"raw", exif)
        else:
            found.setdefault(chunk.kind, bytes(chunk.body))
    return found


def _is_sound(chunk: Chunk, data: bytes) -> bool:
    if not chunk.is_whole:
        return False
    crc = int.from_bytes(data[chunk.end - 4 : chunk.end], "big")
    return zlib.crc32(chunk.body, zlib.crc32(chunk.kind)) == crc


def exif_of(found: dict[bytes, bytes]) -> bytes:
    """Return EXIF data from the eXIf chunk or ImageMagick's text; empty if there are none."""
    return found.get(b"eXIf") or found.get(b"raw", b"")


def _raw_exif(chunk: Chunk) -> bytes:
    """Return EXIF data from a text with lines for name, length, and hexadecimal digits."""
    body = bytes(chunk.body)
    if not (head := RAW_EXIF.match(body)):
        return b""
    text = body[head.end() :]
    if chunk.kind == b"zTXt":
        text = inflated(text[1:])
    digits = NOT_HEX.sub(b"", text.lstrip(b"\n").partition(b"\n")[2].partition(b"\n")[2])
    return bytes.fromhex(digits[: len(digits) & ~1].decode())


def colors_of(found: dict[bytes, bytes]) -> tuple[bytes | None, Coded | None]:
    """Return the profile or the color space of a PNG, in browsers' order of precedence."""
    if b"cICP" in found and (coded := of_code_points(found[b"cICP"])):
        return None, coded
    if profile := profile_of(found):
        return profile, None
    return None, None if b"sRGB" in found else of_gamma(found)


def profile_of(found: dict[bytes, bytes]) -> bytes:
    """Return the ICC profile of an iCCP chunk; empty if absent or damaged."""
    _, _, packed = found.get(b"iCCP", b"").partition(b"\x00")
    return inflated(packed[1:])


def inflated(packed: bytes) -> bytes:
    """Inflate data; empty if they are damaged or inflate to over `MAX_INFLATED` bytes."""
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(packed, MAX_INFLATED)
    except zlib.error:
        return b""
    return plain if inflater.eof else b""


def deep_clear_color(image: Image.Image, data: bytes) -> tuple[int, int, int] | None:
    """Return the transparent color of 16-bit RGB, and remove it from the image.

    Other transparent colors are scaled in place to 8 bits, as Pillow does with all samples.
    """
    clear, depth = image.info.get("transparency"), data[BIT_DEPTH]
    if isinstance(clear, tuple) and depth == 16:
        del image.info["transparency"]
        red, green, blue = clear
        return int(red), int(green), int(blue)
    if isinstance(clear, tuple):
        image.info["transparency"] = tuple(value & 255 for value in clear)
    elif isinstance(clear, int) and image.mode == "L":
        most = (1 << depth) - 1
        image.info["transparency"] = (clear & most) * 255 // most
    return None


def lower_bytes(image: Image.Image) -> Image.Image:
    """Load 16-bit RGB as its samples' lower bytes, which Pillow leaves out."""
    assert isinstance(image, ImageFile.ImageFile)  # noqa: S101 - opened as a PNG
    image.tile = [tile._replace(args="RGB;16L") for tile in image.tile]
    image.load()
    return image


def with_clear_color(upper: Image.Image, lower: Image.Image, clear: tuple[int, int, int]) -> Source:
    """Return a picture with one transparent 16-bit color, from its upper and lower bytes."""
    above, below = [value >> 8 for value in clear], [value & 255 for value in clear]

    def crop(top: int, end: int) -> Image.Image:
        place = 0, top, upper.width, end
        band = upper.crop(place)
        is_clear = (np.asarray(band) == above) & (np.asarray(lower.crop(place)) == below)
        band.putalpha(Image.fromarray(np.where(is_clear.all(axis=2), 0, 255).astype(np.uint8)))
        return band

    return Source(upper.width, upper.height, crop)
