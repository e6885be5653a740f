"""What a text says of a scene, read back from its words.

The counterpart of `grammar`, written apart from it: prompts are parsed to know what a
picture must show, captions to know what they got right.
"""

from dataclasses import dataclass, replace
from itertools import permutations

from crossmodal.datasets.scenes.grammar import (
    BACKGROUND_WORDS,
    COLOR_WORDS,
    SHAPE_WORDS,
    SIZE_WORDS,
)
from crossmodal.datasets.scenes.world import (
    BACKGROUNDS,
    COLORS,
    PLACES,
    SHAPES,
    SIZES,
    Place,
    Relation,
)
from crossmodal.text.tokens import tokenize

PLAIN = {
    word: plain
    for words in (SHAPE_WORDS, COLOR_WORDS, BACKGROUND_WORDS, SIZE_WORDS)
    for plain, synonyms in words.items()
    for word in synonyms
} | {"over": "above", "under": "below", "upper": "top", "lower": "bottom", "middle": "center",
     "centre": "center"}  # fmt: skip
OPPOSITE: dict[Relation, Relation] = {
    "left of": "right of", "right of": "left of", "above": "below", "below": "above",
}  # fmt: skip


@dataclass(frozen=True)
class Said:
    """An object as a text names it; what it leaves out is None."""

    shape: str | None = None
    color: str | None = None
    size: str | None = None

    def fits(self, other: "Said") -> bool:
        """Whether `other` is all that this one says."""
        return all(
            mine is None or mine == theirs
            for mine, theirs in (
                (self.shape, other.shape), (self.color, other.color), (self.size, other.size)
            )
        )  # fmt: skip


@dataclass(frozen=True)
class Claims:
    """The facts of a text: objects in the order of their names, relations by their indices."""

    objects: tuple[Said, ...] = ()
    relations: tuple[tuple[int, Relation, int], ...] = ()
    place: Place | None = None
    background: str | None = None


@dataclass(frozen=True)
class Verdict:
    """Which of the claims are kept; None where nothing was claimed."""

    objects: tuple[bool, ...]
    relations: tuple[bool, ...]
    count: bool
    place: bool | None
    background: bool | None

    @property
    def facts(self) -> tuple[bool, ...]:
        single = (self.count, self.place, self.background)
        return (*self.objects, *self.relations, *(f for f in single if f is not None))

    @property
    def scene(self) -> bool:
        return all(self.facts)


def parse(text: str) -> Claims:
    """What `text` claims; words that it does not know are passed over.

    >>> parse("a tiny red disc above a box on white").relations
    ((0, 'above', 1),)
    """
    return _Parser([PLAIN.get(word, word) for word in tokenize(text)]).claims()


def compare(claims: Claims, shown: Claims) -> Verdict:
    """How much of `claims` is in `shown`; objects are matched so that most are right."""
    match = max(
        _matches(claims.objects, shown.objects),
        key=lambda m: (sum(i is not None for i in m), _related(claims, shown, m)),
    )
    return Verdict(
        objects=tuple(i is not None for i in match),
        relations=tuple(_holds(shown, match, relation) for relation in claims.relations),
        count=len(claims.objects) == len(shown.objects),
        place=None if claims.place is None else claims.place == shown.place,
        background=None if claims.background is None else claims.background == shown.background,
    )


Match = tuple[int | None, ...]  # for each claimed object, the index of the shown one


def _matches(wanted: tuple[Said, ...], shown: tuple[Said, ...]) -> list[Match]:
    slots = [*range(len(shown)), *[None] * len(wanted)]
    return [
        tuple(
            i if i is not None and said.fits(shown[i]) else None
            for said, i in zip(wanted, order, strict=True)
        )
        for order in set(permutations(slots, len(wanted)))
    ]


def _related(claims: Claims, shown: Claims, match: Match) -> int:
    return sum(_holds(shown, match, relation) for relation in claims.relations)


def _holds(shown: Claims, match: Match, relation: tuple[int, Relation, int]) -> bool:
    a, how, b = relation
    i, j = match[a], match[b]
    if i is None or j is None:
        return False
    return (i, how, j) in shown.relations or (j, OPPOSITE[how], i) in shown.relations


class _Parser:
    """One pass over the words; each shape word closes an object, each relation awaits one."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.objects: list[Said] = []
        self.relations: list[tuple[int, Relation, int]] = []
        self.sides: list[str] = []
        self.size: str | None = None
        self.color: str | None = None
        self.background: str | None = None
        self.subject = 0
        self.awaited: Relation | None = None

    def claims(self) -> Claims:
        for i, word in enumerate(self.words):
            self._read(i, word)
        if {"row", "column"} & set(self.words) and not self.relations:
            how: Relation = "left of" if "row" in self.words else "above"
            self.relations = [(i, how, i + 1) for i in range(len(self.objects) - 1)]
        return Claims(tuple(self.objects), tuple(self.relations), self._place(), self.background)

    def _read(self, i: int, word: str) -> None:
        if word in BACKGROUNDS:
            self.background = word
        elif word in SIZES:
            self._describe(i, size=word)
        elif word in COLORS:
            self._describe(i, color=word)
        elif word in SHAPES:
            self._name(word)
        elif word in ("above", "below"):
            self._relate(i, "above" if word == "above" else "below")
        elif word in ("left", "right") and self.words[i + 1 : i + 2] == ["of"]:
            self._relate(i, "left of" if word == "left" else "right of")
        elif word in ("top", "bottom", "left", "right", "center"):
            self.sides.append(word)

    def _describe(self, i: int, **what: str) -> None:
        """Attributes stand before a shape, or after it in "that is small and red"."""
        if self.objects and self._is_afterthought(i):
            self.objects[-1] = replace(self.objects[-1], **what)
        else:
            self.size, self.color = what.get("size", self.size), what.get("color", self.color)

    def _is_afterthought(self, i: int) -> bool:
        """ "is small and red" describes what was named; "is small and red star" only half."""
        if self.words[i - 1] == "and" and self.words[i - 3 : i - 2] == ["is"]:
            mine = (*SHAPES, *COLORS) if self.words[i] in SIZES else SHAPES
            return self.words[i + 1 : i + 2] not in ([word] for word in mine)
        return self.words[i - 1] == "is"

    def _name(self, shape: str) -> None:
        self.objects.append(Said(shape, self.color, self.size))
        self.size = self.color = None
        if self.awaited is not None:
            self.relations.append((self.subject, self.awaited, len(self.objects) - 1))
            self.awaited = None

    def _relate(self, i: int, how: Relation) -> None:
        """After "and" the first object is meant again: "X left of A and above B"."""
        again = self.relations and "and" in self.words[i - 3 : i]
        self.subject = self.relations[-1][0] if again else len(self.objects) - 1
        self.awaited = how

    def _place(self) -> Place | None:
        vertical = next((s for s in self.sides if s in ("top", "bottom")), None)
        horizontal = next((s for s in self.sides if s in ("left", "right")), None)
        corner = " ".join(filter(None, (vertical, horizontal)))
        return next((place for place in PLACES if place == (corner or self._middle())), None)

    def _middle(self) -> str | None:
        return "center" if "center" in self.sides else None
