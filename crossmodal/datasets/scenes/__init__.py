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
CAPTIONS = 40_000  # that `texts` gives of the endless many
SPLIT_SEEDS = {TRAIN: 0, "seen": 1, "pairs": 2, "relations": 3}
HELD_OUT = {TRAIN: None, "seen": None, "pairs": "pairs", "relations": "relations"}


class Scenes:
    """Scenes of one to three objects; `train` and `seen` never hold a held-out combination.

    `pairs` are scenes with a color of a shape, and `relations` with a relation of two shapes,
    that `train` has nowhere.
    """

    name = "scenes"
    digest = "scenes 2"  # another number whenever its pictures or texts change
    judged: tuple[str, ...] = ("seen", "pairs", "relations")
    looks: LookCounts | None = LookCounts(len(SHAPES), len(COLORS))
    things = words.things()
    problems: tuple[str, ...] = ()

    def __init__(self, side: int = 128, jitter: Jitter = PLAIN) -> None:
        self.side, self.jitter = side, jitter

    def roughened(self) -> Self:
        return type(self)(self.side, ROUGH)

    def scene(self, split: str, seed: int, index: int) -> tuple[Scene, Rng]:
        """A scene without pixels, with the random state that draws and words it."""
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
        """Each scene in the plainest words, and in others."""
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
