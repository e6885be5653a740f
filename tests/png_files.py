"""PNG files built chunk by chunk, for files that no library writes."""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
IHDR_END = 33  # offset of the first chunk after the header


def chunk(kind: bytes, body: bytes, *, is_sound: bool = True) -> bytes:
    crc = zlib.crc32(kind + body) ^ (not is_sound)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


def png_of(size: tuple[int, int], depth: int, color_type: int, raw: bytes, *extra: bytes) -> bytes:
    """Return a PNG of unfiltered rows: each begins with a zero byte in `raw`."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, color_type, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(raw))
    return SIGNATURE + header + b"".join(extra) + data + chunk(b"IEND", b"")


def with_chunk(data: bytes, *extra: bytes) -> bytes:
    """Return a PNG with extra chunks before its pixels."""
    return data[:IHDR_END] + b"".join(extra) + data[IHDR_END:]
