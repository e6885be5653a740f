"""Describe scenes: one complete caption, and varied ones that may omit facts."""

from collections.abc import Sequence
from dataclasses import dataclass

from crossmodal.datasets.scenes import words
from crossmodal.datasets.scenes.world import Rng, Scene, Thing, is_alike, relation_between

Text = tuple[str, tuple[int, ...]]  # a phrase, and the indices of the things it names, in order


@dataclass
class Wording:
    """A source of word choices: random with `rng`, else always the first, omitting nothing."""

    rng: Rng | None = None
    bare: bool = False  # without articles: "red circle and blue square"

    def pick(self, choices: Sequence[str]) -> str:
        """Choose at random, preferring the first, most common word."""
        if self.rng is None or self.rng.random() < 0.4:
            return choices[0]
        return choices[int(self.rng.integers(len(choices)))]

    def chance(self, probability: float) -> bool:
        return self.rng is not None and bool(self.rng.random() < probability)


def describe(scene: Scene, rng: Rng | None = None) -> Text:
    """Return a caption, and the indices of the scene's things in order of mention.

    Without `rng` it is the complete caption in the plainest words.
    """
    w = Wording(rng, bare=rng is not None and rng.random() < 0.25)
    body, order = _objects(scene, w)
    body = w.pick(words.OPENINGS) + body
    if w.chance(0.3):
        return body, order
    ground = w.pick(words.COLORS[scene.background])
    if w.chance(0.12):
        leads = w.chance(0.4) and not w.bare  # "on white red circle" is ambiguous
        return (f"on {ground}, {body}" if leads else f"{body} on {ground}"), order
    ground = w.pick(words.GROUNDS).format(ground)
    return f"{ground}, {body}" if w.chance(0.2) else f"{body} {ground}", order


def _objects(scene: Scene, w: Wording) -> Text:
    things = scene.things
    if scene.layout == "single" and scene.place is not None:
        place = "" if w.chance(0.3) else " " + w.pick(words.PLACES[scene.place])
        return _thing(things[0], w) + place, (0,)
    if scene.layout == "corner":
        return _anchored(things, (0, 2, 1) if w.chance(0.5) else (0, 1, 2), w)
    if len(things) > 1 and all(is_alike(things[0], t) for t in things[1:]):
        return _group(things, w) + _line(things, w), tuple(range(len(things)))
    if len(things) == 2:
        return _pair(things, w)
    if is_alike(things[0], things[1]) or is_alike(things[1], things[2]):
        return _two_and_one(scene, w)
    if is_alike(things[0], things[2]):
        text = f"{_thing(things[1], w)} between {_group(things[::2], w)}{_line(things, w)}"
        return text, (1, 0, 2)
    if w.rng is None or w.chance(0.3):
        return _anchored(things, (1, 2, 0) if w.chance(0.5) else (1, 0, 2), w)
    return _listed(things, w)


def _pair(things: Sequence[Thing], w: Wording) -> Text:
    a, b = things
    across = relation_between(a, b) == "left of"
    if w.chance(0.12) and a.shape == b.shape and a.size == b.size:
        return _group(things, w, leave_out_color=True) + _line(things, w), (0, 1)
    if w.chance(0.25):
        joint = w.pick(words.JOINTS) if across else "and"
        line = "" if across else _line(things, w)
        if joint == "and" and across and w.chance(0.3):
            line = _line(things, w)
        return f"{_thing(a, w)} {joint} {_thing(b, w)}{line}", (0, 1)
    i, j = (1, 0) if w.chance(0.5) else (0, 1)
    relation = _relation(things[i], things[j], w)
    return f"{_thing(things[i], w)} {relation} {_thing(things[j], w)}", (i, j)


def _two_and_one(scene: Scene, w: Wording) -> Text:
    """Describe two alike and one: "two red circles to the left of a blue square".

    A column is always named: "two circles above a square" would mean circles side by side.
    """
    things = scene.things
    first = is_alike(things[0], things[1])
    two, one = (things[:2], things[2]) if first else (things[1:], things[0])
    alike, other = ((0, 1), 2) if first else ((1, 2), 0)
    a, b = _group(two, w), _thing(one, w)
    if scene.layout == "column" or (scene.layout == "row" and w.chance(0.3)):
        text = f"{a} and {b}" if first else f"{b} and {a}"
        return text + _line(things, w), (0, 1, 2)
    if w.chance(0.5):
        return f"{b} {_relation(one, two[0], w)} {a}", (other, *alike)
    return f"{a} {_relation(two[0], one, w)} {b}", (*alike, other)


def _listed(things: Sequence[Thing], w: Wording) -> Text:
    if w.chance(0.15):
        text = f"{_thing(things[1], w)} between {_thing(things[0], w)} and {_thing(things[2], w)}"
        return text + _line(things, w), (1, 0, 2)
    a, b, c = (_thing(t, w) for t in things)
    return f"{a}, {b} and {c}{_line(things, w)}", (0, 1, 2)


def _anchored(things: Sequence[Thing], order: tuple[int, int, int], w: Wording) -> Text:
    """Describe one thing by two others: "X to the left of A and above B"."""
    x, a, b = (things[i] for i in order)
    to_a, to_b = _relation(x, a, w), _relation(x, b, w)
    return f"{_thing(x, w)} {to_a} {_thing(a, w)} and {to_b} {_thing(b, w)}", order


def _relation(a: Thing, b: Thing, w: Wording) -> str:
    return w.pick(words.RELATIONS[relation_between(a, b)])


def _line(things: Sequence[Thing], w: Wording) -> str:
    """Return the phrase for a column, or for a row, which may be omitted."""
    if relation_between(things[0], things[-1]) == "above":
        return " " + w.pick(words.DOWN)
    return "" if w.chance(0.4) else " " + w.pick(words.ACROSS)


def _thing(thing: Thing, w: Wording) -> str:
    shape = w.pick(words.ANY_SHAPE) if w.chance(0.03) else w.pick(words.SHAPES[thing.shape])
    phrase = _described(thing, shape, "is", w)
    if w.bare:
        return phrase
    if w.chance(0.05):
        return f"{w.pick(words.NUMBERS[1])} {phrase}"
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _group(things: Sequence[Thing], w: Wording, leave_out_color: bool = False) -> str:
    """Describe things that are alike: "two big red circles"; three need no number."""
    shapes = words.plural(w.pick(words.SHAPES[things[0].shape]))
    phrase = _described(things[0], shapes, "are", w, leave_out_color)
    number = w.pick(words.NUMBERS[len(things)])
    return phrase if len(things) == 3 and w.chance(0.15) else f"{number} {phrase}"


def _described(
    thing: Thing, noun: str, verb: str, w: Wording, leave_out_color: bool = False
) -> str:
    color = "" if leave_out_color or w.chance(0.15) else w.pick(words.COLORS[thing.color])
    size = "" if w.chance(0.35) else w.pick(words.SIZES[thing.size])
    told = [word for word in ((color, size) if w.chance(0.12) else (size, color)) if word]
    if told and not w.bare and w.chance(0.1):
        return f"{noun} that {verb} {' and '.join(told)}"
    if color and told[-1] == color and w.chance(0.05):
        noun = f"colored {noun}"
    return " ".join([*told, noun])
