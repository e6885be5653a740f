"""An independent judge of pictures: color segmentation and contour geometry, nothing learned.

It segments objects from the background. The nearest color, the outline with the largest overlap
and the radius give the color, shape and size of each. It uses neither model, prompt nor caption.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from crossmodal.datasets.scenes.draw import coverage
from crossmodal.datasets.scenes.facts import Claims, Said, Verdict, compare
from crossmodal.datasets.scenes.world import (
    COLORS,
    PLACES,
    SHAPES,
    SIZES,
    Place,
    Rgb,
    Thing,
    relation_between,
)

STANDS_OUT = 60.0  # min RGB distance of an object's pixel from the background
MIN_AREA = 0.004  # fraction of the picture; smaller objects are ignored
BETWEEN_SIZES = (SIZES["small"][1] + SIZES["big"][0]) / 2

# Degradations that the judge must tolerate on true pictures, to be trusted on drawn ones.
HARMS: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    "clean": lambda image: image,
    "blur": lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), 1.0), np.uint8),
    "noise": lambda image: _noisy(image, 12.0),
    "jpeg": lambda image: _as_jpeg(image, 50),
}


def judge(image: NDArray[np.uint8], claims: Claims) -> Verdict:
    """Return which of `claims` hold in a picture, uint8 RGB (side, side, 3)."""
    return compare(claims, see(image))


def see(image: NDArray[np.uint8]) -> Claims:
    """Return all facts of a picture: the look of each object, the relation of each pair."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    ground = np.median(border, axis=0)
    distance = np.linalg.norm(image.astype(np.float32) - ground, axis=2)
    mask = (distance > STANDS_OUT).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    things = [
        _thing(image, labels == label, stats[label])
        for label in range(1, count)
        if stats[label][cv2.CC_STAT_AREA] >= MIN_AREA * mask.size
    ]
    return Claims(
        objects=tuple(Said(t.shape, t.color, t.size) for t in things),
        relations=tuple(
            (i, relation_between(a, b), j)
            for i, a in enumerate(things)
            for j, b in enumerate(things)
            if i < j
        ),
        place=_place(things[0]) if len(things) == 1 else None,
        background=_nearest(ground, COLORS),
    )


def _thing(image: NDArray[np.uint8], mask: NDArray[np.bool_], stats: NDArray[np.int32]) -> Thing:
    side = image.shape[0]
    left, top, width, height = (int(v) for v in stats[:4])
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    color = np.median(image[inner if inner.any() else mask], axis=0)
    radius = max(width, height) / 2 / side
    x, y = (left + width / 2) / side, (top + height / 2) / side
    shape = max(SHAPES, key=lambda s: _overlap(s, mask, x, y, radius))
    size = "small" if radius < BETWEEN_SIZES else "big"
    return Thing(shape, _nearest(color, COLORS), size, x, y, radius)


def _overlap(shape: str, mask: NDArray[np.bool_], x: float, y: float, radius: float) -> float:
    """Return the intersection over union of a mask and a shape drawn into its bounding box."""
    side = mask.shape[0]
    reach = int(radius * side) + 2
    left, top = int(x * side) - reach, int(y * side) - reach
    drawn = coverage(Thing(shape, "red", "big", x, y, radius), side, left, top, 2 * reach + 1) > 0.5
    seen = np.pad(mask, reach)[
        top + reach : top + 3 * reach + 1, left + reach : left + 3 * reach + 1
    ]
    drawn = drawn[: seen.shape[0], : seen.shape[1]]
    return float((drawn & seen).sum() / max(1, (drawn | seen).sum()))


def _place(thing: Thing) -> Place:
    return min(PLACES, key=lambda p: (PLACES[p][0] - thing.x) ** 2 + (PLACES[p][1] - thing.y) ** 2)


def _nearest(color: NDArray[np.float64], palette: dict[str, Rgb]) -> str:
    return min(palette, key=lambda name: float(np.linalg.norm(color - np.array(palette[name]))))


def _noisy(image: NDArray[np.uint8], deviation: float) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).normal(0, deviation, image.shape)
    return np.asarray(np.clip(image + noise, 0, 255), np.uint8)


def _as_jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
