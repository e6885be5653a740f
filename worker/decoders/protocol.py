"""What a worker and its decoders say to each other: msgpack maps, each behind its length.

    decoder   {"ready": true}, once
    worker    {"size": of a file in bytes, "fit": [side, is_square], "max_pixels", "max_need"},
              then the file
    decoder   {"need": bytes of memory that decoding takes}
    worker    {"go": true}, when there is room for them
    decoder   {"shape": [height, width]}, then height × width × 3 bytes of RGB

Instead of its last two answers a decoder may say {"error": one of `ERRORS`, "message": text}, and
is ready for the next file. A decoder may have been taken over by what it decoded: nothing here is
a pickle, and the worker reads no more than it has asked for.
"""

import struct
from typing import Any

import msgpack

from crossmodal.errors import CrossmodalError, ImageTooLarge, InvalidImage

LENGTH = struct.Struct(">I")
MAX_MAP = 16_384  # bytes
MAX_MESSAGE = 2_000  # characters
OUT_OF_MEMORY = "out_of_memory"
ERRORS: dict[str, type[CrossmodalError]] = {
    kind.code: kind for kind in (InvalidImage, ImageTooLarge)
}

Message = dict[str, Any]


def pack(message: Message) -> bytes:
    """One map behind its length."""
    body: bytes = msgpack.packb(message, unicode_errors="backslashreplace")
    return LENGTH.pack(len(body)) + body


def length_of(head: bytes) -> int:
    """How long the map is that a frame's first bytes announce. Raises `ValueError`."""
    (length,) = LENGTH.unpack(head)
    if length > MAX_MAP:
        raise ValueError(f"a map of {length} bytes, {MAX_MAP} are allowed")
    return int(length)


def unpack(body: bytes) -> Message:
    """The map in a frame. Raises `ValueError` where it is none."""
    try:
        message = msgpack.unpackb(body)
    except msgpack.UnpackException as e:
        raise ValueError(f"{type(e).__name__} in {len(body)} bytes") from e
    if not isinstance(message, dict):
        raise ValueError(f"{type(message).__name__}, not a map")
    return message
