"""Pixels as a model wants them, the same way in training and in serving."""

import cv2
import numpy as np
from numpy.typing import NDArray


def fit_square(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Crop the centre square of RGB (H, W, 3) and resize it: (side, side, 3).

    Cropped first: a picture that is very long and thin would grow huge if it were resized.
    """
    height, width = image.shape[:2]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    square = np.ascontiguousarray(image[top : top + edge, left : left + edge])
    if edge == side:
        return square
    how = cv2.INTER_AREA if edge > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (side, side), interpolation=how), np.uint8)
