"""A PNG writer without an image library, which producers do not have."""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOR_TYPES = {1: 0, 3: 2, 4: 6}  # channels -> gray, RGB, RGBA
LEVEL = 1  # of zlib: fast, because the file is sent only once


def write_png(pixels: bytes, height: int, width: int, channels: int) -> bytes:
    """Return a PNG of `pixels`: uint8 (height, width, channels), with 1, 3 or 4 channels."""
    row = width * channels
    # Each row begins with its filter type: 0, none.
    rows = b"".join(b"\0" + pixels[i * row : (i + 1) * row] for i in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, COLOR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, LEVEL)), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)
