"""Which known word somebody may have meant by one that is not known."""

import unicodedata
from collections.abc import Sequence

from rapidfuzz.distance import OSA
from rapidfuzz.process import extract

from crossmodal.text.common_words import NO_THINGS, SMALL_WORDS

TINY, SHORT = 3, 4  # letters: of so few, most changes make another word, as of dog and dot
MEDIUM = 7  # letters, up to which one edit is the most
SURE = 6  # letters, from which on even the first one may be wrong
MAX_LETTERS = 40


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word that `word` is most likely a slip of, in the order of `known`; or none.

    Letters that have changed places are one edit. One edit is the most in words of up to seven
    letters, two in longer ones; words of four letters may only lack one, or have two exchanged,
    and shorter ones only the latter.
    """
    if not 1 < len(word) <= MAX_LETTERS or any(letter.isdigit() for letter in word):
        return None
    if word in NO_THINGS:  # it is spelled as it should be
        return None
    limit = 1 if len(word) <= MEDIUM else 2
    found = extract(word, known, scorer=OSA.distance, score_cutoff=limit, limit=None)
    likely = [one for one in found if _is_likely(word, one[0], int(one[1]))]
    best = min(likely, key=lambda one: (one[1], one[0][0] != word[0], one[2]), default=None)
    return None if best is None else best[0]


def _is_likely(word: str, meant: str, edits: int) -> bool:
    """Whether a known word that is so few edits away is what somebody has meant."""
    if len(meant) < 2 or _scripts(word) != _scripts(meant):
        return False
    if sorted(word) == sorted(meant):
        return True
    if meant in SMALL_WORDS:  # who looks for a thing has not meant "the"
        return False
    if len(word) <= TINY or (len(word) <= SHORT and len(meant) <= len(word)):
        return False
    return word[0] == meant[0] or (edits == 1 and min(len(word), len(meant)) >= SURE)


def _scripts(word: str) -> set[str]:
    """What Unicode's names of its letters begin with, as LATIN."""
    return {unicodedata.name(one, "").partition(" ")[0] for one in word if one.isalpha()}
