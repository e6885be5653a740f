"""The default data set: rendered, endless, seeded scenes of simple shapes."""

from collections.abc import Iterator

import numpy as np

from crossmodal.datasets.base import Caption, Example, Split
from crossmodal.datasets.scenes.draw import draw
from crossmodal.datasets.scenes.grammar import describe
from crossmodal.datasets.scenes.world import Layout, Rng, Scene, is_held_out, random_scene

LAYOUTS: tuple[Layout, ...] = ("single", "pair", "row", "column", "corner")
WEIGHTS = (0.35, 0.35, 0.08, 0.08, 0.14)
VARIED_CAPTIONS = 1
SPLIT_SEEDS = {"train": 0, "seen": 1, "heldout": 2}


class Scenes:
    """Scenes of one to three objects; `train` and `seen` never hold a held-out combination."""

    name = "scenes"

    def __init__(self, side: int = 128) -> None:
        self.side = side

    def scenes(self, split: Split, seed: int) -> Iterator[tuple[Scene, Rng]]:
        """Scenes without pixels, each with the random state that draws and words it."""
        rng = np.random.default_rng((SPLIT_SEEDS[split], seed))
        while True:
            scene = random_scene(rng, LAYOUTS, WEIGHTS)
            if is_held_out(scene) == (split == "heldout"):
                yield scene, rng

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        for scene, rng in self.scenes(split, seed):
            captions = [_caption(scene, None)]
            captions += [_caption(scene, rng) for _ in range(VARIED_CAPTIONS)]
            yield Example(draw(scene, rng, self.side), tuple(captions))

    def texts(self, split: Split, seed: int) -> Iterator[str]:
        for scene, rng in self.scenes(split, seed):
            yield describe(scene, rng)[0]


def _caption(scene: Scene, rng: Rng | None) -> Caption:
    text, order = describe(scene, rng)
    boxes = [(scene.things[i].x, scene.things[i].y, scene.things[i].radius) for i in order]
    return Caption(text, np.array(boxes, np.float32))
