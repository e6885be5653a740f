"""The size of a JPEG XL picture, read from its header: opening its decoder decodes all pixels."""

RATIOS = ((1, 1), (6, 5), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
BITS_OF_SIDES = (9, 13, 18, 30)
CODESTREAM = b"\xff\x0a"


def jxl_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height from the codestream's header, or None if it is incomplete."""
    head = _head(data)
    if len(head) < 12:
        return None
    bits = _Bits(head)
    is_small = bool(bits.take(1))
    height = _side(bits, is_small)
    ratio = bits.take(3)
    if ratio == 0:
        return _side(bits, is_small), height
    across, down = RATIOS[ratio - 1]
    return height * across // down, height


def _head(data: bytes) -> bytes:
    """Return the first bytes of the codestream: bare, in a `jxlc` box, or in `jxlp` boxes."""
    if data.startswith(CODESTREAM):
        return data[2:16]
    start = 0
    while start + 8 <= len(data):
        size, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        body = start + 8
        if size == 1:
            size, body = int.from_bytes(data[body : body + 8], "big"), body + 8
        if kind in (b"jxlc", b"jxlp"):
            stream = body + 4 * (kind == b"jxlp")
            return data[stream + 2 : stream + 16]
        if size < 8:
            return b""
        start += size
    return b""


def _side(bits: "_Bits", is_small: bool) -> int:
    if is_small:
        return 8 * (bits.take(5) + 1)
    return 1 + bits.take(BITS_OF_SIDES[bits.take(2)])


class _Bits:
    """A reader of numbers of a few bits each, least significant bits first."""

    def __init__(self, data: bytes) -> None:
        self._rest = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        number = self._rest & ((1 << count) - 1)
        self._rest >>= count
        return number
