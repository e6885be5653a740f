"""One vector per word, from a bundle or a file. A model host reads them without gensim."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import InvalidBundle, InvalidData
from crossmodal.text.sentences import cut_off
from crossmodal.text.tokens import joined, tokenize
from crossmodal.text.vector_files import read_vectors
from crossmodal.text.vectors import Encoded


class WordVectors:
    """A vocabulary with one vector per word.

    `words` has the most frequent first; `matrix` their vectors, float32 (V, D), in that order.
    """

    def __init__(self, words: Sequence[str], matrix: NDArray[np.float32]) -> None:
        self.words = list(words)
        self.matrix = matrix
        self._rows = {word: row for row, word in enumerate(self.words)}

    @property
    def dim(self) -> int:
        return int(self.matrix.shape[1])

    def encode(self, text: str, max_words: int | None = None) -> Encoded:
        """Return the vectors of the first `max_words` known words of `text`, in order."""
        tokens = tokenize(text)
        known = [t for t in tokens if t in self._rows]
        read = known[:max_words]
        unknown = tuple(dict.fromkeys(t for t in tokens if t not in self._rows))
        stacked = self.matrix[[self._rows[t] for t in read]]
        rest = joined(known[len(read) :])
        cut = rest and cut_off("prompt", len(known), "known words", len(read), rest)
        return Encoded(stacked, unknown, tuple(read), cut)

    def save(self, path: Path) -> None:
        """Write the vectors in word2vec's binary format."""
        pairs = zip(self.words, self.matrix, strict=True)
        rows = (word.encode() + b" " + vector.tobytes() for word, vector in pairs)
        path.write_bytes(f"{len(self.words)} {self.dim}\n".encode() + b"".join(rows))


def load_vectors(path: Path) -> WordVectors:
    """Load all word vectors of a bundle. Raises `InvalidBundle`."""
    try:
        found = read_vectors(path)
    except InvalidData as e:
        raise InvalidBundle(str(e)) from e
    if found.problems:
        raise InvalidBundle(f"{path} is damaged: {'; '.join(found.problems)}")
    return WordVectors(found.words, found.matrix)


def vectors_for(path: Path, texts: Iterable[str]) -> tuple[WordVectors, tuple[str, ...]]:
    """Return a file's vectors for the words of `texts`, and messages about skipped rows.

    Raises `InvalidData`.
    """
    found = read_vectors(path, {token for text in texts for token in tokenize(text)})
    if not found.words:
        raise InvalidData(f"{path} has a vector for no word of the captions")
    return WordVectors(found.words, found.matrix), found.problems
