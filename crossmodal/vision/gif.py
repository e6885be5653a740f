"""The blocks of a GIF: those that make its first frame, and those beside it.

Texts and what programs note for themselves are left out before a decoder sees the file. So
whatever is wrong with them refuses no picture.
"""

HEAD, COLORS, HAS_COLORS = 13, 10, 0x80  # bytes; where the flags of the colors are, and one
EXTENSION, FRAME = 0x21, 0x2C
CONTROL = b"\xf9\x04"  # begins the extension that says which color is transparent


def only_pixels(data: bytes) -> bytes:
    """The file without the extensions before its first frame that no pixel needs.

    A file that is not built of blocks up to there is as it was.
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
    """Where the blocks end that begin with their length, of which the last one has none."""
    while start < len(data) and data[start]:
        start += 1 + data[start]
    return start + 1
