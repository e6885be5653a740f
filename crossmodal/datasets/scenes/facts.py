"""Parse the facts of a scene from a text.

The counterpart of `grammar`, implemented independently: parsed prompts give the facts that a
picture must show, parsed captions are compared with the facts of their picture.
"""

from dataclasses import dataclass, replace
from itertools import permutations

from crossmodal.datasets.scenes import words
from crossmodal.datasets.scenes.world import COLORS, PLACES, SHAPES, SIZES, Place, Relation
from crossmodal.text.tokens import tokenize

ANY, ACROSS, DOWN = "any", "row", "column"
PLAIN = (
    {
        tuple(phrase.split()): plain
        for meanings in (words.COLORS, words.SIZES, words.SHAPES)
        for plain, phrases in meanings.items()
        for phrase in phrases
    }
    | {
        tuple(phrase.split()): plain
        for plain, phrases in (
            ("above", words.RELATIONS["above"]),
            ("below", words.RELATIONS["below"]),
            (ANY, words.ANY_SHAPE),
            (ACROSS, words.ACROSS),
            (DOWN, words.DOWN),
        )
        for phrase in phrases
    }
    | {
        ("upper",): "top",
        ("lower",): "bottom",
        ("middle",): "center",
        ("centre",): "center",
        ("backdrop",): "background",
    }
)
SEVERAL = {words.plural(noun): noun for nouns in words.SHAPES.values() for noun in nouns}
NUMBERS = {
    tuple(phrase.split()): number for number, phrases in words.NUMBERS.items() for phrase in phrases
}
LONGEST = 4  # max words of a phrase
UNCOUNTED = 3  # the count of a plural without a number
OPPOSITE: dict[Relation, Relation] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}


@dataclass(frozen=True)
class Said:
    """An object as a text names it; omitted attributes are None."""

    shape: str | None = None
    color: str | None = None
    size: str | None = None

    def fits(self, other: "Said") -> bool:
        """Return whether `other` has all attributes that this object states."""
        return all(
            mine is None or mine == theirs
            for mine, theirs in (
                (self.shape, other.shape),
                (self.color, other.color),
                (self.size, other.size),
            )
        )


@dataclass(frozen=True)
class Claims:
    """The facts of a text: objects in order of mention, relations by object index."""

    objects: tuple[Said, ...] = ()
    relations: tuple[tuple[int, Relation, int], ...] = ()
    place: Place | None = None
    background: str | None = None


@dataclass(frozen=True)
class Verdict:
    """Which of the claims hold; None where nothing was claimed."""

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
    """Return the claims of `text`; unknown words are skipped.

    >>> parse("a tiny red disc above a box on white").relations
    ((0, 'above', 1),)
    """
    return _Parser(_plain(tokenize(text))).claims()


def _plain(tokens: list[str]) -> list[str]:
    """Replace each phrase by its plainest word; numbers become digits, plurals "circle+"."""
    plain: list[str] = []
    while tokens:
        for length in range(min(LONGEST, len(tokens)), 0, -1):
            phrase = tuple(tokens[:length])
            if word := _meaning(phrase):
                break
        plain.append(word or tokens[0])
        tokens = tokens[length:]
    return plain


def _meaning(phrase: tuple[str, ...]) -> str | None:
    if phrase in NUMBERS:
        return str(NUMBERS[phrase])
    if phrase[0] in SEVERAL and len(phrase) == 1:
        return PLAIN[SEVERAL[phrase[0]],] + "+"
    return PLAIN.get(phrase)


def compare(claims: Claims, shown: Claims) -> Verdict:
    """Return which of `claims` hold in `shown`, for the best matching of objects."""
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
    """A one-pass parser: a shape word completes an object, a relation expects the next one."""

    def __init__(self, found: list[str]) -> None:
        self.words = found
        self.objects: list[Said] = []
        self.relations: list[tuple[int, Relation, int]] = []
        self.sides: list[str] = []
        self.size: str | None = None
        self.color: str | None = None
        self.background: str | None = None
        self.number = 1
        self.named: range = range(0)  # the objects of the previous noun
        self.subject: range = range(0)
        self.awaited: Relation | None = None
        self.between: range | None = None

    def claims(self) -> Claims:
        for i, word in enumerate(self.words):
            self._read(i, word)
        how: Relation = "above" if DOWN in self.words else "left of"
        if self.between and len(self.objects) == len(self.between) + 2:
            (x,), (a, b) = self.between, (i for i in self._all() if i not in self.between)
            self.relations = [(a, how, x), (x, how, b)]
        elif {ACROSS, DOWN} & set(self.words) and not self.relations:
            self.relations = [(i, how, i + 1) for i in self._all()[:-1]]
        return Claims(tuple(self.objects), tuple(self.relations), self._place(), self.background)

    def _all(self) -> range:
        return range(len(self.objects))

    def _read(self, i: int, word: str) -> None:
        if word in COLORS and self._is_ground(i):
            self.background = word
        elif word in SIZES:
            self._describe(i, size=word)
        elif word in COLORS:
            self._describe(i, color=word)
        elif word in ("1", "2", "3"):
            self.number = int(word)
        elif word.rstrip("+") in (*SHAPES, ANY):
            self._name(word)
        elif word in ("above", "below"):
            self._relate(i, "above" if word == "above" else "below")
        elif word in ("left", "right") and self.words[i + 1 : i + 2] == ["of"]:
            self._relate(i, "left of" if word == "left" else "right of")
        elif word == "between":
            self.between = self.named
        elif word in ("top", "bottom", "left", "right", "center"):
            self.sides.append(word)

    def _is_ground(self, i: int) -> bool:
        """Return whether a color is the background's: "on a white background", or "on white"."""
        after = self.words[i + 1 : i + 2]
        described = (*SHAPES, *SIZES, *COLORS, ANY, "colored")
        bare = self.words[i - 1 : i] == ["on"] and (
            not after or after[0].rstrip("+") not in described
        )
        return after == ["background"] or bare

    def _describe(self, i: int, **what: str) -> None:
        """Set attributes of the next shape, or of the last: "that is small and red"."""
        if self.objects and self._is_afterthought(i):
            for n in self.named:
                self.objects[n] = replace(self.objects[n], **what)
        else:
            self.size, self.color = what.get("size", self.size), what.get("color", self.color)

    def _is_afterthought(self, i: int) -> bool:
        """Return whether an attribute is of the last noun: not "red" in "is small and red star"."""
        verbs = ("is", "are")
        if self.words[i - 1] == "and" and self.words[i - 3 : i - 2] in [[v] for v in verbs]:
            mine = (*SHAPES, *COLORS) if self.words[i] in SIZES else (*SHAPES, *SIZES)
            after = [w.rstrip("+") for w in self.words[i + 1 : i + 2]]
            return after not in ([word] for word in mine)
        return self.words[i - 1] in verbs

    def _name(self, word: str) -> None:
        several = word.endswith("+")
        number = (self.number if self.number > 1 else UNCOUNTED) if several else 1
        shape = word.rstrip("+")
        said = Said(None if shape == ANY else shape, self.color, self.size)
        self.named = range(len(self.objects), len(self.objects) + number)
        self.objects += [said] * number
        self.size, self.color, self.number = None, None, 1
        if self.awaited is not None:
            self.relations += [(s, self.awaited, n) for s in self.subject for n in self.named]
            self.awaited = None

    def _relate(self, i: int, how: Relation) -> None:
        """Expect an object; "and" keeps the subject, as in "X left of A and above B"."""
        again = self.relations and "and" in self.words[max(0, i - 4) : i]
        self.subject = self.subject if again else self.named
        self.awaited = how

    def _place(self) -> Place | None:
        vertical = next((s for s in self.sides if s in ("top", "bottom")), None)
        horizontal = next((s for s in self.sides if s in ("left", "right")), None)
        corner = " ".join(filter(None, (vertical, horizontal)))
        return next((place for place in PLACES if place == (corner or self._middle())), None)

    def _middle(self) -> str | None:
        return "center" if "center" in self.sides else None
