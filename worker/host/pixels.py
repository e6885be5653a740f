"""Converts what models return as a picture to one that can be stored."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

OUTSIDE = 0.01  # tolerance for floats outside 0 to 1: sums are not exact


def pixels_of(made: Any) -> NDArray[np.uint8]:
    """Return a picture as uint8 RGB (H, W, 3). Raises `TypeError` or `ValueError`."""
    pixels = np.asarray(made)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"a picture has the shape {pixels.shape}, not (height, width, 3)")
    if pixels.dtype == np.uint8:
        return pixels
    if not np.issubdtype(pixels.dtype, np.floating):
        raise TypeError(f"a picture has the dtype {pixels.dtype}, not uint8 or floats from 0 to 1")
    if not np.isfinite(pixels).all():
        raise ValueError(
            "it has NaN or infinity: a model in half precision may need float32 or bfloat16"
        )
    least, most = float(pixels.min()), float(pixels.max())
    if least < -OUTSIDE or most > 1 + OUTSIDE:
        raise ValueError(f"its floats go from {least:.3g} to {most:.3g}, not from 0 to 1")
    return (pixels.clip(0, 1) * 255).round().astype(np.uint8)
