"""Scenes in words: one complete caption, and varied ones that may leave facts out."""

from collections.abc import Sequence
from dataclasses import dataclass

from crossmodal.datasets.scenes.world import (
    Place,
    Relation,
    Rng,
    Scene,
    Thing,
    relation_between,
)

SHAPE_WORDS = {
    "circle": ("circle", "disc"), "square": ("square", "box"), "triangle": ("triangle",),
    "star": ("star",), "ring": ("ring", "donut"), "cross": ("cross", "plus"),
    "heart": ("heart",), "diamond": ("diamond", "rhombus"),
}  # fmt: skip
COLOR_WORDS = {"cyan": ("cyan", "turquoise"), "purple": ("purple", "violet")}
BACKGROUND_WORDS = {"gray": ("gray", "grey")}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "big": ("big", "large", "huge")}
PLACE_WORDS: dict[Place, tuple[str, ...]] = {
    "top left": ("in the top left corner", "in the upper left corner", "at the top left"),
    "top": ("at the top", "in the top middle"),
    "top right": ("in the top right corner", "in the upper right corner", "at the top right"),
    "left": ("on the left", "on the left side", "at the left"),
    "center": ("in the center", "in the middle", "in the centre"),
    "right": ("on the right", "on the right side", "at the right"),
    "bottom left": ("in the bottom left corner", "in the lower left corner", "at the bottom left"),
    "bottom": ("at the bottom", "in the bottom middle"),
    "bottom right": (
        "in the bottom right corner", "in the lower right corner", "at the bottom right",
    ),
}  # fmt: skip
RELATION_WORDS: dict[Relation, tuple[str, ...]] = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
JOINTS = ("and", "and", "with", "beside", "next to")  # unsaid, a pair reads left to right
OPENINGS = ("", "", "", "a picture of ", "there is ", "an image of ")


@dataclass
class Wording:
    """Chooses words: always the first and nothing left out without `rng`, at random with it."""

    rng: Rng | None = None

    def pick(self, words: Sequence[str]) -> str:
        return words[0] if self.rng is None else words[int(self.rng.integers(len(words)))]

    def chance(self, probability: float) -> bool:
        return self.rng is not None and bool(self.rng.random() < probability)


def describe(scene: Scene, rng: Rng | None = None) -> tuple[str, tuple[int, ...]]:
    """A caption, and the indices of the scene's things in the order the caption names them.

    Without `rng` it is the complete caption in the plainest words.
    """
    w = Wording(rng)
    body, order = _objects(scene, w)
    body = w.pick(OPENINGS) + body
    if w.chance(0.2):
        return body, order
    ground = w.pick(BACKGROUND_WORDS.get(scene.background, (scene.background,)))
    ground = f"on {ground}" if w.chance(0.1) else f"on a {ground} background"
    if w.chance(0.25):
        return f"{ground}, {body}", order
    return f"{body} {ground}", order


def _objects(scene: Scene, w: Wording) -> tuple[str, tuple[int, ...]]:
    things = scene.things
    if scene.layout == "single" and scene.place is not None:
        place = "" if w.chance(0.3) else " " + w.pick(PLACE_WORDS[scene.place])
        return _thing(things[0], w) + place, (0,)
    if scene.layout == "pair":
        if relation_between(*things) == "left of" and w.chance(0.25):
            return f"{_thing(things[0], w)} {w.pick(JOINTS)} {_thing(things[1], w)}", (0, 1)
        i, j = (1, 0) if w.chance(0.5) else (0, 1)
        return f"{_thing(things[i], w)} {_relation(things[i], things[j], w)} " + _thing(
            things[j], w
        ), (i, j)
    if scene.layout == "corner":
        return _anchored(things, (0, 2, 1) if w.chance(0.5) else (0, 1, 2), w)
    if w.rng is None or w.chance(0.5):
        return _anchored(things, (1, 2, 0) if w.chance(0.5) else (1, 0, 2), w)
    a, b, c = (_thing(t, w) for t in things)
    return f"{a}, {b} and {c} in a {scene.layout}", (0, 1, 2)


def _anchored(
    things: Sequence[Thing], order: tuple[int, int, int], w: Wording
) -> tuple[str, tuple[int, ...]]:
    """ "X to the left of A and above B": one thing, placed by two others."""
    x, a, b = (things[i] for i in order)
    to_a, to_b = _relation(x, a, w), _relation(x, b, w)
    return f"{_thing(x, w)} {to_a} {_thing(a, w)} and {to_b} {_thing(b, w)}", order


def _relation(a: Thing, b: Thing, w: Wording) -> str:
    return w.pick(RELATION_WORDS[relation_between(a, b)])


def _thing(thing: Thing, w: Wording) -> str:
    shape = w.pick(SHAPE_WORDS[thing.shape])
    color = w.pick(COLOR_WORDS.get(thing.color, (thing.color,)))
    size = "" if w.chance(0.3) else w.pick(SIZE_WORDS[thing.size])
    if w.chance(0.15):
        phrase = f"{shape} that is {size} and {color}" if size else f"{shape} that is {color}"
    else:
        phrase = f"{size} {color} {shape}" if size else f"{color} {shape}"
    if w.chance(0.2):
        return phrase
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase
