"""An independent judge of pictures: color segmentation and geometry, nothing learned.

It finds what stands on the background, and compares each find with the shapes drawn at its
place: the color nearest to its pixels, the outline it overlaps most with, its size by its
radius. It never sees the model, the prompt or the caption.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from crossmodal.datasets.scenes.draw import coverage
from crossmodal.datasets.scenes.world import (
    BACKGROUNDS,
    COLORS,
    SHAPES,
    SIZES,
    Rgb,
    Scene,
    Thing,
    neighbours,
    relation_between,
)

STANDS_OUT = 60.0  # RGB distance from the background from which a pixel is an object's
MIN_AREA = 0.004  # of the picture; less is a speck
BETWEEN_SIZES = (SIZES["small"][1] + SIZES["big"][0]) / 2


@dataclass(frozen=True)
class Verdict:
    """Which facts of a scene a picture shows."""

    background: bool
    objects: tuple[bool, ...]
    relations: tuple[bool, ...]
    count: bool

    @property
    def scene(self) -> bool:
        return self.background and self.count and all(self.objects) and all(self.relations)


def judge(image: NDArray[np.uint8], scene: Scene) -> Verdict:
    """Compare a picture, uint8 RGB (side, side, 3), with the scene it should show."""
    background, found = see(image)
    matches = [_find(thing, found) for thing in scene.things]
    relations = []
    for i, j in neighbours(scene):
        a, b = matches[i], matches[j]
        wanted = relation_between(scene.things[i], scene.things[j])
        relations.append(a is not None and b is not None and relation_between(a, b) == wanted)
    return Verdict(
        background=background == scene.background,
        objects=tuple(match is not None for match in matches),
        relations=tuple(relations),
        count=len(found) == len(scene.things),
    )


def see(image: NDArray[np.uint8]) -> tuple[str, list[Thing]]:
    """The background and the objects of a picture."""
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
    return _nearest(ground, BACKGROUNDS), things


def _find(wanted: Thing, found: list[Thing]) -> Thing | None:
    look = (wanted.shape, wanted.color, wanted.size)
    return next((t for t in found if (t.shape, t.color, t.size) == look), None)


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
    """Intersection over union of a mask and a shape that is drawn into its bounding box."""
    side = mask.shape[0]
    drawn = coverage(Thing(shape, "red", "big", x, y, radius), side, 0, 0, side) > 0.5
    return float((drawn & mask).sum() / max(1, (drawn | mask).sum()))


def _nearest(color: NDArray[np.float64], palette: dict[str, Rgb]) -> str:
    return min(palette, key=lambda name: float(np.linalg.norm(color - np.array(palette[name]))))
