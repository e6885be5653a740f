"""Resizing of a model's input pictures, the same in training and in serving."""

import cv2
import numpy as np
from numpy.typing import NDArray

from crossmodal.vision.fit import Fit


def fit(image: NDArray[np.uint8], wanted: Fit) -> NDArray[np.uint8]:
    """Resize RGB (H, W, 3) to a `Fit`."""
    return (fit_square if wanted.is_square else fit_within)(image, wanted.side)


def fit_within(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Shrink RGB (H, W, 3) so that no edge is longer than `side`; keeps the aspect ratio."""
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest <= side:
        return np.ascontiguousarray(image)
    size = max(1, width * side // longest), max(1, height * side // longest)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def fit_square(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Crop the center square of RGB (H, W, 3), then resize it to (side, side, 3).

    In this order: a very long and thin picture would grow huge if it were resized first.
    """
    height, width = image.shape[:2]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    square = np.ascontiguousarray(image[top : top + edge, left : left + edge])
    if edge == side:
        return square
    how = cv2.INTER_AREA if edge > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (side, side), interpolation=how), np.uint8)
