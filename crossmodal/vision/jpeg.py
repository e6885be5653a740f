"""JPEG files with truncated segments, and JPEG files that end too early.

A file that lacks only its end marker is told from one that lacks a part of its picture.
"""

import io
import re
import zlib
from collections.abc import Iterator

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from crossmodal.vision.header import BAND

END = b"\xff\xd9"
# A decoder that still needs data draws these bytes, which changes the picture.
FILLER = b"\x55\xa3\x1c\x6e" * 256
SEGMENT = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
SCAN = 0xDA
LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)  # markers of frames
# Segments of which a decoder reads this many bytes, even if they have fewer.
SHORTEST = ((0xE0, b"JFIF", 12), (0xEE, b"Adobe", 12))
FIRST, LAST = 0, 63  # coefficients of a block


def without_stubs(data: bytes) -> bytes:
    """Return the file without segments that are shorter than their type requires."""
    kept, start = [], 0
    for place, end in _segments(data):
        if _is_stub(data[place + 1 : end]):
            kept.append(data[start:place])
            start = end
    return b"".join([*kept, data[start:]]) if kept else data


def is_lossless(data: bytes) -> bool:
    """Return whether a JPEG is lossless: without a DCT, it cannot be reduced while decoded."""
    return any(data[place + 1] in LOSSLESS for place, _ in _segments(data))


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each segment before the first scan."""
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
    """Return the decoded picture of a file that lacks only its end marker, else None.

    Filler bytes after such a file change no pixel.
    """
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
    """Return whether the scans have the last bit of all components' first and last coefficient."""
    assert isinstance(image, JpegImageFile)  # noqa: S101 - opened as a JPEG
    missing = {(number, end) for number, *_ in image.layer for end in (FIRST, LAST)}
    for components, first, last, is_final in _scans(data):
        if is_final:
            missing -= {(number, end) for number in components for end in (first, last)}
    return not missing


def _scans(data: bytes) -> list[tuple[list[int], int, int, bool]]:
    """Return each scan's components, first and last coefficient, and if it has their last bit."""
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
