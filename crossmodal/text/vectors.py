"""What any source of text vectors gives: Word2Vec's, one a word, or BERT's, one a token."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Encoded:
    """A text as vectors, float32 (T, D), and the words that had none, each with a known
    word that is spelled nearly like it, if there is one."""

    vectors: NDArray[np.float32]
    unknown: tuple[str, ...] = ()
    suggestions: dict[str, str] = field(default_factory=dict)


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
