"""The default data set: rendered, endless, seeded scenes of simple shapes."""

from collections.abc import Iterator
from itertools import count

import numpy as np

from crossmodal.datasets.base import TRAIN, Caption, Example
from crossmodal.datasets.scenes.draw import draw
from crossmodal.datasets.scenes.grammar import describe
from crossmodal.datasets.scenes.world import Layout, Rng, Scene, is_held_out, random_scene

LAYOUTS: tuple[Layout, ...] = ("single", "pair", "row", "column", "corner")
WEIGHTS = (0.35, 0.35, 0.08, 0.08, 0.14)
VARIED_CAPTIONS = 1
CAPTIONS = 20_000  # that `texts` gives of the endless many
SPLIT_SEEDS = {TRAIN: 0, "seen": 1, "heldout": 2}


class Scenes:
    """Scenes of one to three objects; `train` and `seen` never hold a held-out combination."""

    name = digest = "scenes"
    judged: tuple[str, ...] = ("seen", "heldout")
    grounded = True
    problems: tuple[str, ...] = ()

    def __init__(self, side: int = 128) -> None:
        self.side = side

    def scene(self, split: str, seed: int, index: int) -> tuple[Scene, Rng]:
        """A scene without pixels, with the random state that draws and words it."""
        rng = np.random.default_rng((SPLIT_SEEDS[split], seed, index))
        while is_held_out(scene := random_scene(rng, LAYOUTS, WEIGHTS)) != (split == "heldout"):
            continue
        return scene, rng

    def scenes(self, split: str, seed: int) -> Iterator[tuple[Scene, Rng]]:
        return (self.scene(split, seed, index) for index in count())

    def example(self, split: str, seed: int, index: int) -> Example:
        scene, rng = self.scene(split, seed, index)
        captions = [_caption(scene, None)]
        captions += [_caption(scene, rng) for _ in range(VARIED_CAPTIONS)]
        return Example(draw(scene, rng, self.side), tuple(captions))

    def size(self, split: str) -> int | None:
        return None

    def texts(self, split: str, seed: int) -> Iterator[str]:
        for index in range(CAPTIONS):
            yield describe(*self.scene(split, seed, index))[0]


def _caption(scene: Scene, rng: Rng | None) -> Caption:
    text, order = describe(scene, rng)
    boxes = [(scene.things[i].x, scene.things[i].y, scene.things[i].radius) for i in order]
    return Caption(text, np.array(boxes, np.float32))
