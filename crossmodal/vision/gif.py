"""The blocks of a GIF before its first frame.

Comments, texts and application data are removed before decoding, so that a fault in them fails
no picture.
"""

HEAD, COLORS, HAS_COLORS = 13, 10, 0x80  # bytes; offset of the color table's flags; one of them
EXTENSION, FRAME = 0x21, 0x2C
CONTROL = b"\xf9\x04"  # begins the graphic control extension, which has the transparent color


def only_pixels(data: bytes) -> bytes:
    """Return the file without the extensions before its first frame that no pixel needs.

    A file whose blocks do not lead to a frame is returned unchanged.
    """
    flags = data[COLORS] if len(data) > COLORS else 0
    start = HEAD + (3 << (flags & 7) + 1 if flags & HAS_COLORS else 0)
    kept = [data[:start]]
    while start + 1 < len(data) and data[start] == EXTENSION:
        end = _end_of_blocks(data, start + 2)
        if data.startswith(CONTROL, start + 1):
            kept.append(data[start:end])
        start = end
    is_sound = start < len(data) and data[start] == FRAME
    return b"".join([*kept, data[start:]]) if is_sound else data


def _end_of_blocks(data: bytes, start: int) -> int:
    """Return the end of a chain of sub-blocks: each begins with its length, the last is empty."""
    while start < len(data) and data[start]:
        start += 1 + data[start]
    return start + 1
