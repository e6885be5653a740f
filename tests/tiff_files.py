"""Uncompressed TIFF files with any samples and byte order, as few programs write them."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONG_TAGS = (273, 279)  # StripOffsets and StripByteCounts
UNSIGNED, SIGNED, FLOAT = 1, 2, 3


def tiff_of(
    samples: NDArray[Any], form: int = UNSIGNED, photometric: int = 1, colors: Sequence[int] = ()
) -> bytes:
    """Return a TIFF of gray (H, W) or planes (channels, H, W), one strip per plane."""
    planes = samples if samples.ndim == 3 else samples[np.newaxis]
    count, height, width = planes.shape
    order = ">" if samples.dtype.byteorder == ">" else "<"
    data = bytearray(8)
    places = [_append(data, plane.tobytes()) for plane in planes]
    values = {
        256: [width],
        257: [height],
        258: [8 * samples.dtype.itemsize] * count,
        259: [1],
        262: [photometric],
        273: places,
        277: [count],
        278: [height],
        279: [planes[0].nbytes] * count,
        284: [2 if count > 1 else 1],
        **({320: list(colors)} if colors else {}),
        339: [form] * count,
    }
    entries = [_entry(data, order, tag, numbers) for tag, numbers in values.items()]
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)
    place = _append(data, directory)
    data[:8] = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, place)
    return bytes(data)


def _append(data: bytearray, more: bytes) -> int:
    place = len(data)
    data += more
    return place


def _entry(data: bytearray, order: str, tag: int, numbers: Sequence[int]) -> bytes:
    code, letter = (4, "I") if tag in LONG_TAGS else (3, "H")
    packed = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
    if len(packed) > 4:
        packed = struct.pack(f"{order}I", _append(data, packed))
    return struct.pack(f"{order}HHI", tag, code, len(numbers)) + packed.ljust(4, b"\0")
