"""Color spaces given by numbers: gamma and chromaticities of a PNG, code points of ITU-T H.273.

Code points come from the cICP chunk of a PNG and from the boxes of AVIF and HEIC.
"""

import struct
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

GAMMA, GAMMA_NEAR = 1 / 2.2, 0.05  # of a PNG; gammas this near count as sRGB's curve
PAPER_WHITE, PEAK = 203.0, 1000.0  # cd/m² of HDR: sRGB's white, and the brightest light
NCLX, BOXES = b"colrnclx", 2**16  # the start of a box, and the bytes that are searched for it

# x and y of red, green, blue and white; the keys are code points of ITU-T H.273.
D65 = (0.3127, 0.3290)
BT709 = (0.640, 0.330, 0.300, 0.600, 0.150, 0.060, *D65)
PRIMARIES: Mapping[int, tuple[float, ...]] = {
    1: BT709,
    2: BT709,  # unspecified
    4: (0.67, 0.33, 0.21, 0.71, 0.14, 0.08, 0.310, 0.316),
    5: (0.64, 0.33, 0.29, 0.60, 0.15, 0.06, *D65),
    6: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *D65),
    7: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *D65),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *D65),
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *D65),
    22: (0.630, 0.340, 0.295, 0.605, 0.155, 0.077, *D65),
}
SRGB_CURVES = (1, 2, 6, 13, 14, 15)  # browsers apply sRGB's curve to those of video, too
PQ, HLG = 16, 18
POWERS = {4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}


class Coded(NamedTuple):
    """A color space: the light of each of 256 values, and the chromaticities of its primaries."""

    curve: Floats
    primaries: tuple[float, ...] = BT709
    is_hdr: bool = False

    @property
    def is_srgb(self) -> bool:
        usual = _srgb_light(np.linspace(0, 1, 256))
        return self.primaries == BT709 and bool(np.allclose(self.curve, usual, atol=1e-4))


def of_gamma(notes: Mapping[bytes, bytes]) -> Coded:
    """Return the color space of gAMA and cHRM chunks; sRGB's numbers replace absent or bad ones."""
    gamma, points = notes.get(b"gAMA", b""), notes.get(b"cHRM", b"")
    exponent = struct.unpack(">I", gamma)[0] / 100_000 if len(gamma) == 4 else 0.0
    primaries = BT709
    if len(points) == 32:
        white_x, white_y, *rest = (n / 100_000 for n in struct.unpack(">8I", points))
        primaries = (*rest, white_x, white_y)
    if not _is_triangle(primaries):
        primaries = BT709
    is_usual = not exponent or abs(exponent / GAMMA - 1) < GAMMA_NEAR
    if np.allclose(primaries, BT709, atol=0.002):
        primaries = BT709
    values = np.linspace(0, 1, 256)
    return Coded(_srgb_light(values) if is_usual else _float(values ** (1 / exponent)), primaries)


def _is_triangle(primaries: tuple[float, ...]) -> bool:
    """Return whether primaries are possible: y is positive, and they span a triangle."""
    if not all(y > 0.001 for y in primaries[1::2]):
        return False
    points = np.array([[x, y, 1 - x - y] for x, y in pairs(primaries)[:3]])
    return bool(abs(np.linalg.det(points)) > 0.001)


def of_code_points(codes: bytes) -> Coded | None:
    """Return the color space of a cICP chunk, or None for unknown codes."""
    if len(codes) != 4 or codes[2] != 0:
        return None
    values = np.arange(256) / 255 if codes[3] else ((np.arange(256) - 16) / 219).clip(0, 1)
    return of_codes(codes[0], codes[1], values)


def of_boxes(data: bytes) -> Coded | None:
    """Return the color space in the boxes of an AVIF or HEIC file, or None.

    The range flag is ignored: the decoder always returns full-range RGB.
    """
    start = data.find(NCLX, 0, BOXES)
    codes = data[start + len(NCLX) :][:4] if start >= 0 else b""
    if len(codes) < 4:
        return None
    return of_codes(
        int.from_bytes(codes[:2], "big"), int.from_bytes(codes[2:], "big"), np.arange(256) / 255
    )


def of_codes(primaries: int, transfer: int, values: NDArray[np.float64]) -> Coded | None:
    """Return the color space of code points, for `values` from 0 to 1; None for unknown codes."""
    curve = _curve(transfer, values)
    if primaries not in PRIMARIES or curve is None:
        return None
    return Coded(_float(curve), PRIMARIES[primaries], transfer in (PQ, HLG))


def _curve(transfer: int, v: NDArray[np.float64]) -> NDArray[np.float64] | Floats | None:
    """Return the light of values, where 1 is white; None for an unknown transfer function."""
    if transfer in SRGB_CURVES:
        return _srgb_light(v)
    if transfer in POWERS:
        return np.asarray(v ** POWERS[transfer], np.float64)
    if transfer == PQ:
        root = v ** (32 / 2523)
        light = (root - 107 / 128).clip(0) / (2413 / 128 - 2392 / 128 * root)
        return np.asarray(light ** (8192 / 1305) * 10_000 / PAPER_WHITE, np.float64)
    if transfer == HLG:
        scene = np.where(
            v <= 0.5, v**2 / 3, (np.exp((v - 0.55991073) / 0.17883277) + 0.28466892) / 12
        )
        return np.asarray(scene**1.2 * PEAK / PAPER_WHITE, np.float64)
    return None


def _srgb_light(v: NDArray[np.float64]) -> Floats:
    return _float(np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4))


def _float(values: NDArray[np.float64] | Floats) -> Floats:
    return np.asarray(values, np.float32)


def pairs(flat: tuple[float, ...]) -> list[tuple[float, float]]:
    """Split chromaticities into pairs of x and y."""
    return list(zip(flat[::2], flat[1::2], strict=True))
