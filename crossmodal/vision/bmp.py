"""The ICC profile in a BMP, which its decoder passes over."""

import struct

FILE_HEAD, HEAD = 14, 124  # bytes: of the fifth version, the only one that may have a profile
COLORS, PROFILE = 56, 112  # where it says so, and where and how long the profile is
EMBEDDED = b"DEBM"


def profile_of(data: bytes) -> bytes | None:
    """The profile that a file has, if it has one."""
    head = data[FILE_HEAD : FILE_HEAD + HEAD]
    if len(head) < HEAD or head[:1] != bytes([HEAD]) or head[COLORS : COLORS + 4] != EMBEDDED:
        return None
    start, size = struct.unpack_from("<II", head, PROFILE)
    return data[FILE_HEAD + start :][:size] or None
