"""What any source of text vectors gives: Word2Vec's, one a word, or BERT's, one a token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import extractOne


@dataclass(frozen=True)
class Encoded:
    """A text as vectors, float32 (T, D), and the words that had none."""

    vectors: NDArray[np.float32]
    unknown: tuple[str, ...] = ()


class TextVectors(Protocol):
    """A vocabulary that turns texts into vectors, one text at a time."""

    @property
    def dim(self) -> int: ...

    @property
    def words(self) -> list[str]:
        """Words that it knows, the most frequent one first."""
        ...

    def encode(self, text: str, max_words: int) -> Encoded:
        """The vectors of the first `max_words` known words of `text`, in their order."""
        ...


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word that is fewest edits away, if these are no more than half of `word`."""
    limit = max(1, len(word) // 2)
    found = extractOne(word, known, scorer=Levenshtein.distance, score_cutoff=limit)
    return found[0] if found else None
