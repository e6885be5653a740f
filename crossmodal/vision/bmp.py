"""Parts of a BMP file that Pillow ignores or misreads: ICC profiles, over-long RLE rows."""

import struct

FILE_HEAD, HEAD = 14, 124  # bytes; BITMAPV5HEADER, the only header that may have a profile
COLORS, PROFILE = 56, 112  # offsets of the color space type, of the profile's offset and size
EMBEDDED = b"DEBM"
PIXELS = slice(10, 14)  # holds the offset of the pixels
RUNS, RUNS_OF_HALVES = 1, 2  # compressions: RLE8 and RLE4


def profile_of(data: bytes) -> bytes | None:
    """Return the file's embedded ICC profile, or None."""
    head = data[FILE_HEAD : FILE_HEAD + HEAD]
    if len(head) < HEAD or head[:1] != bytes([HEAD]) or head[COLORS : COLORS + 4] != EMBEDDED:
        return None
    start, size = struct.unpack_from("<II", head, PROFILE)
    return data[FILE_HEAD + start :][:size] or None


def has_long_rows(data: bytes, width: int, compression: int) -> bool:
    """Return whether runs write past the end of a row: Pillow puts those pixels in the next row."""
    place, x = int.from_bytes(data[PIXELS], "little"), 0
    while place + 1 < len(data):
        count, value = data[place], data[place + 1]
        place += 2
        if count:
            x = min(width, x + count)
        elif value == 0:  # end of row
            x = 0
        elif value == 1:  # end of bitmap
            return False
        elif value == 2:  # delta: right and up
            x = (x + data[place]) % width if place < len(data) else x
            place += 2
        elif x + value > width:
            return True
        else:
            x += value
            size = -(-value // 2) if compression == RUNS_OF_HALVES else value
            place += size + size % 2
    return False
