"""Conversion of a file's colors to sRGB, as browsers do it.

A file gives its color space as an ICC profile, which LittleCMS applies, or as numbers.
"""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from crossmodal.vision.coded import BT709, D65, PAPER_WHITE, PEAK, Coded, Floats, pairs

Convert = Callable[[Image.Image], Image.Image]
"""Converts a part of a picture to sRGB: RGB, or RGBA if it has transparency."""

SAME = 2  # levels of 256: a profile that differs from sRGB by no more is not applied
SPACE = slice(16, 20)  # of a profile: its color space
LEVELS = 4096  # of light, in the table that applies sRGB's curve
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def conversion(profile: bytes | None, coded: Coded | None, mode: str) -> Convert | None:
    """Return the conversion to sRGB for a mode; None if it is sRGB already, or unknown."""
    if coded is not None:
        return None if coded.is_srgb else _by_numbers(coded)
    return _by_profile(profile, mode) if profile else None


def is_of_inks(profile: bytes | None) -> bool:
    """Return whether a profile is one of CMYK."""
    return profile is not None and profile[SPACE] == b"CMYK"


def _srgb_values(light: NDArray[np.float64]) -> NDArray[np.uint8]:
    v = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray((v * 255).round().clip(0, 255), np.uint8)


def _to_xyz(primaries: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the matrix (3, 3) from RGB to XYZ, with white adapted to D65 (Bradford)."""
    xyz = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in pairs(primaries)]).T
    points, white = xyz[:, :3], xyz[:, 3]
    matrix = points * np.linalg.solve(points, white)
    wanted = np.array([D65[0] / D65[1], 1.0, (1 - sum(D65)) / D65[1]])
    scale = (BRADFORD @ wanted) / (BRADFORD @ white)
    adapted: NDArray[np.float64] = np.linalg.inv(BRADFORD) @ np.diag(scale) @ BRADFORD @ matrix
    return adapted


def _by_numbers(coded: Coded) -> Convert:
    matrix = np.asarray(np.linalg.inv(_to_xyz(BT709)) @ _to_xyz(coded.primaries), np.float32).T
    back = _srgb_values(np.linspace(0, 1, LEVELS) ** 2)  # finer steps where it is dark

    def convert(image: Image.Image) -> Image.Image:
        has_alpha = image.has_transparency_data
        source = image.convert("RGBA" if has_alpha else "RGB")
        light = coded.curve[np.asarray(source)[..., :3]]
        light = (_toned(light @ matrix) if coded.is_hdr else light @ matrix).clip(0, 1)
        found = Image.fromarray(back[np.rint(np.sqrt(light) * (LEVELS - 1)).astype(np.uint16)])
        if has_alpha:
            found.putalpha(source.getchannel("A"))
        return found

    return convert


def _toned(light: Floats) -> Floats:
    """Tone-map HDR light (extended Reinhard): the peak becomes white, the dark stays as it is."""
    peak = PEAK / PAPER_WHITE
    brightest = light.max(axis=-1, keepdims=True).clip(0, None)
    return np.asarray(light * (1 + brightest / peak**2) / (1 + brightest), np.float32)


def _by_profile(data: bytes, mode: str) -> Convert | None:
    """Return a profile's conversion; None if it is broken, sRGB, or of another color space."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        space = profile.profile.xcolor_space.strip()
        if _space(mode) != space and not (space == "RGB" and _space(mode) == "GRAY"):
            return None
        source = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}[space]
        transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), source, "RGB")
        if source == "RGB" and _is_srgb(transform):
            return None
    except (ImageCms.PyCMSError, OSError, KeyError, ValueError, TypeError):
        return None
    return lambda image: _applied(transform, image, source)


def _space(mode: str) -> str:
    if mode in ("1", "L", "LA", "La", "F") or mode.startswith("I;16"):
        return "GRAY"
    return "CMYK" if mode == "CMYK" else "RGB"


def _is_srgb(transform: ImageCms.ImageCmsTransform) -> bool:
    """Return whether a transform of RGB changes no value by more than `SAME`."""
    steps = np.arange(0, 256, 51, dtype=np.uint8)
    colors = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, len(steps), 3)
    found = np.asarray(ImageCms.applyTransform(Image.fromarray(colors), transform))
    return bool(np.abs(found.astype(int) - colors).max() <= SAME)


def _applied(transform: ImageCms.ImageCmsTransform, image: Image.Image, source: str) -> Image.Image:
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    found = ImageCms.applyTransform(image.convert(source), transform)
    assert found is not None  # noqa: S101 - None only for a transform in place
    if alpha is not None:
        found.putalpha(alpha)
    return found
