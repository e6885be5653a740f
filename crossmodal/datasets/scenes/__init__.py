"""The default data set: rendered, endless, seeded scenes of simple shapes."""

from collections.abc import Iterator
from itertools import count
from typing import Self

import numpy as np

from crossmodal.datasets.base import TRAIN, Caption, Example, Grounding, LookCounts
from crossmodal.datasets.scenes import words
from crossmodal.datasets.scenes.draw import PLAIN, ROUGH, Jitter, draw
from crossmodal.datasets.scenes.grammar import describe
from crossmodal.datasets.scenes.world import (
    COLORS,
    SHAPES,
    Layout,
    Rng,
    Scene,
    held_out,
    random_scene,
)

LAYOUTS: tuple[Layout, ...] = ("single", "pair", "row", "column", "corner", "trio")
WEIGHTS = (0.29, 0.33, 0.13, 0.08, 0.13, 0.04)
VARIED_CAPTIONS = 4
CAPTIONS = 40_000  # returned by `texts`
SPLIT_SEEDS = {TRAIN: 0, "seen": 1, "pairs": 2, "relations": 3}
HELD_OUT = {TRAIN: None, "seen": None, "pairs": "pairs", "relations": "relations"}


class Scenes:
    """A data set of scenes with one to three objects.

    `train` and `seen` have no held-out combinations. `pairs` are scenes with a color of a shape
    that is not in `train`, `relations` scenes with a relation of two shapes that is not.
    """

    name = "scenes"
    digest = "scenes 2"  # change the number whenever pictures or texts change
    judged: tuple[str, ...] = ("seen", "pairs", "relations")
    looks: LookCounts | None = LookCounts(len(SHAPES), len(COLORS))
    things = words.things()
    problems: tuple[str, ...] = ()

    def __init__(self, side: int = 128, jitter: Jitter = PLAIN) -> None:
        self.side, self.jitter = side, jitter

    def roughened(self) -> Self:
        return type(self)(self.side, ROUGH)

    def scene(self, split: str, seed: int, index: int) -> tuple[Scene, Rng]:
        """Return a scene without pixels, and the random state to draw and describe it with."""
        rng = np.random.default_rng((SPLIT_SEEDS[split], seed, index))
        while held_out(scene := random_scene(rng, LAYOUTS, WEIGHTS)) != HELD_OUT[split]:
            continue
        return scene, rng

    def scenes(self, split: str, seed: int) -> Iterator[tuple[Scene, Rng]]:
        return (self.scene(split, seed, index) for index in count())

    def example(self, split: str, seed: int, index: int) -> Example:
        scene, rng = self.scene(split, seed, index)
        captions = [_caption(scene, None)]
        captions += [_caption(scene, rng) for _ in range(VARIED_CAPTIONS)]
        return Example(draw(scene, rng, self.side, self.jitter), tuple(captions))

    def size(self, split: str) -> int | None:
        return None

    def texts(self, split: str, seed: int) -> Iterator[str]:
        """Yield a plain and a varied caption of each scene."""
        for index in range(CAPTIONS // 2):
            scene, rng = self.scene(split, seed, index)
            yield describe(scene)[0]
            yield describe(scene, rng)[0]


def _caption(scene: Scene, rng: Rng | None) -> Caption:
    text, order = describe(scene, rng)
    named = [scene.things[i] for i in order]
    return Caption(
        text,
        Grounding(
            boxes=np.array([(t.x, t.y, t.radius) for t in named], np.float32),
            shapes=np.array([SHAPES.index(t.shape) for t in named]),
            colors=np.array([_number(t.color) for t in named]),
            ground=_number(scene.background),
        ),
    )


def _number(color: str) -> int:
    return list(COLORS).index(color)
