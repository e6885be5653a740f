"""What is in a BMP that its decoder passes over, or takes for something else."""

import struct

FILE_HEAD, HEAD = 14, 124  # bytes: of the fifth version, the only one that may have a profile
COLORS, PROFILE = 56, 112  # where it says so, and where and how long the profile is
EMBEDDED = b"DEBM"
PIXELS = slice(10, 14)  # where their place is said
RUNS, RUNS_OF_HALVES = 1, 2  # compressions: runs of bytes, and of half bytes


def profile_of(data: bytes) -> bytes | None:
    """The profile that a file has, if it has one."""
    head = data[FILE_HEAD : FILE_HEAD + HEAD]
    if len(head) < HEAD or head[:1] != bytes([HEAD]) or head[COLORS : COLORS + 4] != EMBEDDED:
        return None
    start, size = struct.unpack_from("<II", head, PROFILE)
    return data[FILE_HEAD + start :][:size] or None


def has_long_rows(data: bytes, width: int, compression: int) -> bool:
    """Whether pixels are written beyond the end of a row: Pillow takes them for the next one's."""
    place, x = int.from_bytes(data[PIXELS], "little"), 0
    while place + 1 < len(data):
        count, value = data[place], data[place + 1]
        place += 2
        if count:
            x = min(width, x + count)
        elif value == 0:  # the end of a row
            x = 0
        elif value == 1:  # the end of all
            return False
        elif value == 2:  # a step to the right, and up
            x = (x + data[place]) % width if place < len(data) else x
            place += 2
        elif x + value > width:
            return True
        else:
            x += value
            size = -(-value // 2) if compression == RUNS_OF_HALVES else value
            place += size + size % 2
    return False
