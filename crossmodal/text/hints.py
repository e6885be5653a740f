"""Suggest the known word that an unknown one is likely a typo of."""

import unicodedata
from collections.abc import Sequence

from rapidfuzz.distance import OSA
from rapidfuzz.process import extract

from crossmodal.text.common_words import NO_THINGS, SMALL_WORDS

TINY, SHORT = 3, 4  # letters; most edits of so short a word give another word: dog, dot
MEDIUM = 7  # letters; one edit at most up to this length
SURE = 6  # letters; from this length on, the first one may be wrong
MAX_LETTERS = 40


def nearest(word: str, known: Sequence[str]) -> str | None:
    """Return the likeliest intended word in `known`, or None; ties go to the earliest.

    At most one edit in words of up to seven letters, two in longer ones; a transposition is one
    edit. Words of four letters may only lack a letter or have letters transposed, shorter ones
    only the latter.
    """
    if not 1 < len(word) <= MAX_LETTERS or any(letter.isdigit() for letter in word):
        return None
    if word in NO_THINGS:  # spelled correctly
        return None
    limit = 1 if len(word) <= MEDIUM else 2
    found = extract(word, known, scorer=OSA.distance, score_cutoff=limit, limit=None)
    likely = [one for one in found if _is_likely(word, one[0], int(one[1]))]
    best = min(likely, key=lambda one: (one[1], one[0][0] != word[0], one[2]), default=None)
    return None if best is None else best[0]


def _is_likely(word: str, meant: str, edits: int) -> bool:
    """Return whether the known word `meant`, `edits` edits away, is a likely correction."""
    if len(meant) < 2 or _scripts(word) != _scripts(meant):
        return False
    if sorted(word) == sorted(meant):
        return True
    if meant in SMALL_WORDS:  # a user who names a thing does not mean "the"
        return False
    if len(word) <= TINY or (len(word) <= SHORT and len(meant) <= len(word)):
        return False
    return word[0] == meant[0] or (edits == 1 and min(len(word), len(meant)) >= SURE)


def _scripts(word: str) -> set[str]:
    """Return the scripts of a word's letters, by their Unicode names, such as LATIN."""
    return {unicodedata.name(one, "").partition(" ")[0] for one in word if one.isalpha()}
