"""The content of scenes, and their random generation.

A scene has one to three objects on a plain background. Combinations held out from training
(`held_out`) show whether a model composes or only memorizes.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Rng = np.random.Generator
Rgb = tuple[int, int, int]
Place = Literal[
    "top left",
    "top",
    "top right",
    "left",
    "center",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
]
Relation = Literal["left of", "right of", "above", "below"]
Look = tuple[str, str, str]  # shape, color, size
Layout = Literal["single", "pair", "row", "column", "corner", "trio"]

SHAPES = (
    "circle",
    "square",
    "triangle",
    "star",
    "ring",
    "cross",
    "heart",
    "diamond",
    "rectangle",
    "oval",
)
COLORS: dict[str, Rgb] = {
    "red": (220, 30, 35),
    "orange": (245, 140, 20),
    "yellow": (240, 220, 40),
    "green": (30, 150, 50),
    "cyan": (50, 205, 215),
    "blue": (35, 70, 215),
    "purple": (120, 40, 160),
    "pink": (245, 130, 180),
    "brown": (120, 70, 30),
    "magenta": (215, 30, 150),
    "lime": (150, 235, 60),
    "teal": (10, 125, 125),
    "white": (248, 248, 248),
    "black": (12, 12, 12),
    "gray": (128, 128, 128),
    "beige": (225, 205, 170),
    "navy": (15, 20, 70),
}
BRIGHT = 12  # the first 12 colors are mostly for objects, the others mostly for backgrounds
MOSTLY = 0.8  # the fraction of objects and backgrounds that choose only from their colors
SIZES = {"small": (0.094, 0.106), "big": (0.144, 0.156)}  # radius / side
PLACES: dict[Place, tuple[float, float]] = {
    "top left": (0.22, 0.22),
    "top": (0.5, 0.22),
    "top right": (0.78, 0.22),
    "left": (0.22, 0.5),
    "center": (0.5, 0.5),
    "right": (0.78, 0.5),
    "bottom left": (0.22, 0.78),
    "bottom": (0.5, 0.78),
    "bottom right": (0.78, 0.78),
}

HELD_OUT_PAIRS = frozenset(
    {
        ("red", "heart"),
        ("blue", "star"),
        ("green", "ring"),
        ("yellow", "square"),
        ("purple", "triangle"),
        ("orange", "cross"),
        ("cyan", "circle"),
        ("pink", "diamond"),
        ("brown", "oval"),
        ("magenta", "square"),
        ("lime", "rectangle"),
        ("teal", "star"),
    }
)
ALIKE = 0.3  # the fraction of pairs, rows and columns with objects that look alike
TELLABLE_DISTANCE = 100  # min RGB distance of a color that stands out from a background


@dataclass(frozen=True)
class Thing:
    """One object: `x`, `y` (center) and `radius` are fractions of the picture's side."""

    shape: str
    color: str
    size: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """Objects in reading order: left to right in a row, top to bottom in a column.

    In a `corner`, the second object is beside the first, the third above or below it. In a
    `trio`, the first two look alike, and the third is above or below both. Otherwise objects
    look alike only in a pair, a row or a column.
    """

    background: str
    layout: Layout
    things: tuple[Thing, ...]
    place: Place | None = None


def is_tellable(color: str, background: str) -> bool:
    """Return whether `color` stands out from `background` (pink on beige does not)."""
    a, b = np.array(COLORS[color]), np.array(COLORS[background])
    return float(np.linalg.norm(a - b)) >= TELLABLE_DISTANCE


def relation_between(a: Thing, b: Thing) -> Relation:
    """Return the relation of `a` to `b`, along the axis on which they are further apart."""
    if abs(a.x - b.x) >= abs(a.y - b.y):
        return "left of" if a.x < b.x else "right of"
    return "above" if a.y < b.y else "below"


def neighbours(scene: Scene) -> list[tuple[int, int]]:
    """Return the index pairs of adjacent things."""
    if scene.layout == "corner":
        return [(0, 1), (0, 2)]
    if scene.layout == "trio":
        return [(0, 2), (1, 2)]
    return [(i, i + 1) for i in range(len(scene.things) - 1)]


def is_alike(a: Thing, b: Thing) -> bool:
    """Return whether both have the same shape, color and size, so that texts group them."""
    return (a.shape, a.color, a.size) == (b.shape, b.color, b.size)


def held_out(scene: Scene) -> str | None:
    """Return the split that the scene is reserved for: `pairs`, `relations`, or None."""
    if any((t.color, t.shape) in HELD_OUT_PAIRS for t in scene.things):
        return "pairs"
    pairs = [(scene.things[i], scene.things[j]) for i, j in neighbours(scene)]
    return "relations" if any(_is_held_out_relation(a, b) for a, b in pairs) else None


def _is_held_out_relation(a: Thing, b: Thing) -> bool:
    if a.shape == b.shape:
        return False
    relation = relation_between(a, b)
    if relation in ("right of", "below"):
        a, b = b, a
    vertical = relation in ("above", "below")
    return (SHAPES.index(a.shape) + 3 * SHAPES.index(b.shape) + 4 * vertical) % 8 == 0


def random_scene(rng: Rng, layouts: tuple[Layout, ...], weights: tuple[float, ...]) -> Scene:
    """Generate a scene of one of `layouts`, chosen by `weights`."""
    layout = layouts[int(rng.choice(len(layouts), p=weights))]
    background = _color(rng, list(COLORS)[BRIGHT:])
    place, centers = _centers(rng, layout)
    looks = _looks(rng, background, layout, len(centers))
    things = tuple(
        Thing(shape, color, size, x, y, float(rng.uniform(*SIZES[size])))
        for (shape, color, size), (x, y) in zip(looks, centers, strict=True)
    )
    return Scene(background, layout, things, place)


def _color(rng: Rng, usual: list[str]) -> str:
    return str(rng.choice(usual if rng.random() < MOSTLY else list(COLORS)))


def _looks(rng: Rng, background: str, layout: Layout, count: int) -> list[Look]:
    """Choose looks: all alike, two of three alike, two of one shape, or all different."""
    looks = [_look(rng, background)]
    grouped = layout in ("pair", "row", "column")
    alike = grouped and rng.random() < ALIKE
    while len(looks) < count:
        look = _look(rng, background)
        if (alike or layout == "pair") and rng.random() < ALIKE:
            look = (looks[0][0], look[1], looks[0][2])
        others = [other for other in looks if other[0] == look[0]]  # of the same shape
        if len(others) < 2 and all(other[1] != look[1] for other in others):
            looks.append(look)
    if alike or layout == "trio":
        looks[1] = looks[0]
    if alike and count > 2:
        looks[2] = looks[0] if rng.random() < 0.5 else looks[2]
        rng.shuffle(looks)
    return looks


def _look(rng: Rng, background: str) -> Look:
    while not is_tellable(color := _color(rng, list(COLORS)[:BRIGHT]), background):
        continue
    return str(rng.choice(SHAPES)), color, str(rng.choice(list(SIZES)))


def _centers(rng: Rng, layout: Layout) -> tuple[Place | None, list[tuple[float, float]]]:
    """Choose the place and centers of a layout, with jitter of a few percent."""
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
    if layout == "trio":
        y = 0.5 - rng.choice((-1, 1)) * 0.21
        return None, _jittered(rng, [(0.28, y), (0.72, y), (0.5, 1 - y)], 0.02)
    line = [(0.17, 0.5), (0.5, 0.5), (0.83, 0.5)]
    points = line if layout == "row" else [(y, x) for x, y in line]
    return None, _jittered(rng, points, 0.006)


def _maybe_transposed(rng: Rng, line: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(y, x) for x, y in line] if rng.random() < 0.5 else line


def _jittered(rng: Rng, points: list[tuple[float, float]], by: float) -> list[tuple[float, float]]:
    return [(float(x + rng.uniform(-by, by)), float(y + rng.uniform(-by, by))) for x, y in points]
