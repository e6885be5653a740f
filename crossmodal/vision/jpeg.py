"""JPEG files with segments that break off, and files that end too early.

Of the latter, those are told that have all of their picture.
"""

import io
import re
import zlib
from collections.abc import Iterator

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from crossmodal.vision.header import BAND

END = b"\xff\xd9"
# Whatever a decoder makes of these bytes shows in the picture, if it was still in want of any.
FILLER = b"\x55\xa3\x1c\x6e" * 256
SEGMENT = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
SCAN = 0xDA
LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)  # how a frame begins
# Segments beside the pixels of which a decoder reads so many bytes, whatever they have.
SHORTEST = ((0xE0, b"JFIF", 12), (0xEE, b"Adobe", 12))
FIRST, LAST = 0, 63  # coefficients of a block


def without_stubs(data: bytes) -> bytes:
    """The file without segments that are shorter than what their kind must have."""
    kept, start = [], 0
    for place, end in _segments(data):
        if _is_stub(data[place + 1 : end]):
            kept.append(data[start:place])
            start = end
    return b"".join([*kept, data[start:]]) if kept else data


def is_lossless(data: bytes) -> bool:
    """Whether its pixels are no waves: it cannot be reduced while it is decoded."""
    return any(data[place + 1] in LOSSLESS for place, _ in _segments(data))


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Where the segments before the first scan begin and end."""
    end = 2
    while (mark := SEGMENT.match(data, end)) and mark[1][0] != SCAN:
        place = mark.end()
        end = place + int.from_bytes(data[place : place + 2], "big")
        yield place - 2, end


def _is_stub(segment: bytes) -> bool:
    body = segment[3:]
    return any(
        segment[0] == marker and body.startswith(name) and len(body) < least
        for marker, name, least in SHORTEST
    )


def completed(data: bytes, draft: tuple[int, int] | None) -> Image.Image | None:
    """The decoded picture of a file that lacks nothing but its end marker; else None."""
    body = data.rstrip(b"\xff")
    wanted = _digest(_loaded(body + FILLER + END, draft))
    image = _loaded(body + END, draft)
    if not _has_all_scans(image, body) or _digest(image) != wanted:
        return None
    return image


def _loaded(data: bytes, draft: tuple[int, int] | None) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    if draft is not None:
        image.draft("RGB", draft)
    image.load()
    return image


def _digest(image: Image.Image) -> int:
    digest, rows = 0, max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(image.height, top + rows)))
        digest = zlib.crc32(band.tobytes(), digest)
    return digest


def _has_all_scans(image: Image.Image, data: bytes) -> bool:
    """Whether the last bit of every coefficient of every component has come in some scan."""
    assert isinstance(image, JpegImageFile)  # noqa: S101 - opened as nothing else
    missing = {(number, end) for number, *_ in image.layer for end in (FIRST, LAST)}
    for components, first, last, is_final in _scans(data):
        if is_final:
            missing -= {(number, end) for number in components for end in (first, last)}
    return not missing


def _scans(data: bytes) -> list[tuple[list[int], int, int, bool]]:
    """Of each scan its components, its first and last coefficient, and if it has their last bit."""
    found, place = [], 2
    while mark := SEGMENT.search(data, place):
        place = mark.end()
        length = int.from_bytes(data[place : place + 2], "big")
        if mark[1][0] == SCAN:
            count = data[place + 2]
            components = [data[place + 3 + 2 * i] for i in range(count)]
            first, last, bits = data[place + 3 + 2 * count : place + 6 + 2 * count]
            found.append((components, first, last, bits & 15 == 0))
        place += length
    return found
