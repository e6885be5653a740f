"""What a rendered scene can contain, and how scenes are drawn at random.

A scene holds one to three objects on a plain background. Combinations that are held
out from training (`is_held_out`) show whether a model composes or only remembers.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Rng = np.random.Generator
Rgb = tuple[int, int, int]
Place = Literal[
    "top left", "top", "top right", "left", "center", "right",
    "bottom left", "bottom", "bottom right",
]  # fmt: skip
Relation = Literal["left of", "right of", "above", "below"]
Layout = Literal["single", "pair", "row", "column", "corner"]

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart", "diamond")
COLORS: dict[str, Rgb] = {
    "red": (220, 30, 35), "orange": (245, 140, 20), "yellow": (240, 220, 40),
    "green": (30, 150, 50), "cyan": (50, 205, 215), "blue": (35, 70, 215),
    "purple": (120, 40, 160), "pink": (245, 130, 180),
}  # fmt: skip
BACKGROUNDS: dict[str, Rgb] = {
    "white": (248, 248, 248), "black": (12, 12, 12), "gray": (128, 128, 128),
    "beige": (225, 205, 170), "navy": (15, 20, 70),
}  # fmt: skip
SIZES = {"small": (0.094, 0.106), "big": (0.144, 0.156)}  # radius / side
PLACES: dict[Place, tuple[float, float]] = {
    "top left": (0.22, 0.22), "top": (0.5, 0.22), "top right": (0.78, 0.22),
    "left": (0.22, 0.5), "center": (0.5, 0.5), "right": (0.78, 0.5),
    "bottom left": (0.22, 0.78), "bottom": (0.5, 0.78), "bottom right": (0.78, 0.78),
}  # fmt: skip

HELD_OUT_PAIRS = frozenset({
    ("red", "heart"), ("blue", "star"), ("green", "ring"), ("yellow", "square"),
    ("purple", "triangle"), ("orange", "cross"), ("cyan", "circle"), ("pink", "diamond"),
})  # fmt: skip
TELLABLE_DISTANCE = 100  # RGB distance below which a color cannot be told from a background


@dataclass(frozen=True)
class Thing:
    """One object: `x`, `y` (centre) and `radius` are fractions of the picture's side."""

    shape: str
    color: str
    size: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """Objects in reading order: left to right in a row, top to bottom in a column.

    In a `corner`, the first object has the second beside it and the third above or below it.
    """

    background: str
    layout: Layout
    things: tuple[Thing, ...]
    place: Place | None = None


def is_tellable(color: str, background: str) -> bool:
    """Whether `color` stands out from `background` (pink on beige does not)."""
    a, b = np.array(COLORS[color]), np.array(BACKGROUNDS[background])
    return float(np.linalg.norm(a - b)) >= TELLABLE_DISTANCE


def relation_between(a: Thing, b: Thing) -> Relation:
    """Where `a` stands as seen from `b`, along the axis on which they are further apart."""
    if abs(a.x - b.x) >= abs(a.y - b.y):
        return "left of" if a.x < b.x else "right of"
    return "above" if a.y < b.y else "below"


def neighbours(scene: Scene) -> list[tuple[int, int]]:
    """Index pairs of things that stand next to each other."""
    if scene.layout == "corner":
        return [(0, 1), (0, 2)]
    return [(i, i + 1) for i in range(len(scene.things) - 1)]


def is_held_out(scene: Scene) -> bool:
    """Whether training must not see this scene: a color-shape pair or a relation is reserved."""
    if any((t.color, t.shape) in HELD_OUT_PAIRS for t in scene.things):
        return True
    pairs = [(scene.things[i], scene.things[j]) for i, j in neighbours(scene)]
    return any(_is_held_out_relation(a, b) for a, b in pairs)


def _is_held_out_relation(a: Thing, b: Thing) -> bool:
    relation = relation_between(a, b)
    if relation in ("right of", "below"):
        a, b = b, a
    vertical = relation in ("above", "below")
    return (SHAPES.index(a.shape) + 3 * SHAPES.index(b.shape) + 4 * vertical) % 8 == 0


def random_scene(rng: Rng, layouts: tuple[Layout, ...], weights: tuple[float, ...]) -> Scene:
    """A scene of one of `layouts`, with no two objects alike."""
    layout = layouts[int(rng.choice(len(layouts), p=weights))]
    background = str(rng.choice(list(BACKGROUNDS)))
    place, centers = _centers(rng, layout)
    colors = [c for c in COLORS if is_tellable(c, background)]
    looks: set[tuple[str, str]] = set()
    things = []
    for x, y in centers:
        while (look := (str(rng.choice(colors)), str(rng.choice(SHAPES)))) in looks:
            continue
        looks.add(look)
        size = str(rng.choice(list(SIZES)))
        things.append(Thing(look[1], look[0], size, x, y, float(rng.uniform(*SIZES[size]))))
    return Scene(background, layout, tuple(things), place)


def _centers(rng: Rng, layout: Layout) -> tuple[Place | None, list[tuple[float, float]]]:
    """Where the things of a layout stand; a few percent of jitter makes no two scenes equal."""
    if layout == "single":
        place: Place = list(PLACES)[int(rng.integers(len(PLACES)))]
        return place, _jittered(rng, [PLACES[place]], 0.03)
    if layout == "pair":
        gap = rng.uniform(0.2, 0.24)
        line = [(0.5 - gap, 0.5), (0.5 + gap, 0.5)]
        return None, _jittered(rng, _maybe_transposed(rng, line), 0.03)
    if layout == "corner":
        sx, sy = rng.choice((-1, 1)), rng.choice((-1, 1))
        x, y = 0.5 - sx * 0.2, 0.5 - sy * 0.2
        return None, _jittered(rng, [(x, y), (x + sx * 0.42, y), (x, y + sy * 0.42)], 0.02)
    line = [(0.17, 0.5), (0.5, 0.5), (0.83, 0.5)]
    points = line if layout == "row" else [(y, x) for x, y in line]
    return None, _jittered(rng, points, 0.006)


def _maybe_transposed(rng: Rng, line: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(y, x) for x, y in line] if rng.random() < 0.5 else line


def _jittered(rng: Rng, points: list[tuple[float, float]], by: float) -> list[tuple[float, float]]:
    return [(float(x + rng.uniform(-by, by)), float(y + rng.uniform(-by, by))) for x, y in points]
