"""What any source of text vectors gives: Word2Vec's, one a word, or BERT's, one a token."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Encoded:
    """A text as vectors, float32 (T, D), and the words that had none.

    `known` are the words that were read, and `cut` is a sentence of what was not, as the text is
    longer than a model reads.
    """

    vectors: NDArray[np.float32]
    unknown: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    cut: str = ""


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
