"""The interface of text vectors: word2vec's, one per word, or BERT's, one per token."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Encoded:
    """A text as vectors, float32 (T, D), and the words without a vector.

    `known` are the words that were read; `cut` is a message about the rest of a text that is
    longer than the model reads.
    """

    vectors: NDArray[np.float32]
    unknown: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    cut: str = ""


class TextVectors(Protocol):
    """A vocabulary that encodes texts as vectors, one text at a time."""

    @property
    def dim(self) -> int: ...

    @property
    def words(self) -> list[str]:
        """The known words, the most frequent first."""
        ...

    def encode(self, text: str, max_words: int) -> Encoded:
        """Return the vectors of the first `max_words` known words of `text`, in order."""
        ...
