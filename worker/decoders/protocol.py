"""The protocol between a worker and its decoders: msgpack maps, each preceded by its length.

    decoder   {"ready": true}, once
    worker    {"size": of a file in bytes, "fit": [side, is_square], "max_pixels", "max_need"},
              then the file
    decoder   {"need": bytes of memory that decoding takes}
    worker    {"go": true}, once that memory is available
    decoder   {"shape": [height, width]}, then height × width × 3 bytes of RGB

Instead of either of its last two replies, a decoder may send {"error": one of `ERRORS`,
"message": text}; it is then ready for the next file. A file may have taken control of its decoder:
so nothing here is a pickle, and the worker reads no more than it has requested.
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
    """Return a map, preceded by its length."""
    body: bytes = msgpack.packb(message, unicode_errors="backslashreplace")
    return LENGTH.pack(len(body)) + body


def length_of(head: bytes) -> int:
    """Return the map's length from a frame's first bytes. Raises `ValueError` if too long."""
    (length,) = LENGTH.unpack(head)
    if length > MAX_MAP:
        raise ValueError(f"a map of {length} bytes, over the limit of {MAX_MAP}")
    return int(length)


def unpack(body: bytes) -> Message:
    """Return the map in a frame. Raises `ValueError` if it has none."""
    try:
        message = msgpack.unpackb(body)
    except msgpack.UnpackException as e:
        raise ValueError(f"{type(e).__name__} in {len(body)} bytes") from e
    if not isinstance(message, dict):
        raise ValueError(f"{type(message).__name__}, not a map")
    return message
