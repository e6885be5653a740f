"""Pixels as a model wants them, the same way in training and in serving."""

import cv2
import numpy as np
from numpy.typing import NDArray


def fit_square(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize the shorter side of RGB (H, W, 3) to `side` and crop the centre: (side, side, 3)."""
    height, width = image.shape[:2]
    scale = side / min(height, width)
    if scale != 1:
        size = (max(side, round(width * scale)), max(side, round(height * scale)))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])
