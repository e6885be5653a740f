"""Word vectors by gensim's word2vec (Mikolov et al. 2013, https://arxiv.org/abs/1301.3781)."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gensim.models import KeyedVectors, Word2Vec
from numpy.typing import NDArray

from crossmodal.errors import InvalidBundle, InvalidData
from crossmodal.text.sentences import cut_off
from crossmodal.text.tokens import joined, tokenize
from crossmodal.text.vector_files import Found, read_vectors
from crossmodal.text.vectors import Encoded

ENOUGH = 5_000  # captions; from this number on, rare words are not learned
FEW = 5  # min occurrences of a word then


class WordVectors:
    """A vocabulary with one vector per word."""

    def __init__(self, keyed: KeyedVectors) -> None:
        self._keyed = keyed

    @property
    def dim(self) -> int:
        return int(self._keyed.vector_size)

    @property
    def words(self) -> list[str]:
        """All words, the most frequent first."""
        return list(self._keyed.index_to_key)

    @property
    def matrix(self) -> NDArray[np.float32]:
        """All vectors, float32 (V, D), in the order of `words`."""
        return np.asarray(self._keyed.vectors, np.float32)

    def encode(self, text: str, max_words: int | None = None) -> Encoded:
        """Return the vectors of the first `max_words` known words of `text`, in order."""
        tokens = tokenize(text)
        known = [t for t in tokens if t in self._keyed]
        read = known[:max_words]
        unknown = tuple(dict.fromkeys(t for t in tokens if t not in self._keyed))
        vectors = [self._keyed[t] for t in read]
        stacked = np.array(vectors, np.float32).reshape(len(read), self.dim)
        rest = joined(known[len(read) :])
        cut = rest and cut_off("prompt", len(known), "known words", len(read), rest)
        return Encoded(stacked, unknown, tuple(read), cut)

    def save(self, path: Path) -> None:
        """Write the vectors in word2vec's binary format."""
        self._keyed.save_word2vec_format(str(path), binary=True)


def load_vectors(path: Path) -> WordVectors:
    """Load all word vectors of a bundle. Raises `InvalidBundle`."""
    try:
        found = read_vectors(path)
    except InvalidData as e:
        raise InvalidBundle(str(e)) from e
    if found.problems:
        raise InvalidBundle(f"{path} is damaged: {'; '.join(found.problems)}")
    return _keyed(found)


def vectors_for(path: Path, texts: Iterable[str]) -> tuple[WordVectors, tuple[str, ...]]:
    """Return a file's vectors for the words of `texts`, and messages about skipped rows.

    Raises `InvalidData`.
    """
    found = read_vectors(path, {token for text in texts for token in tokenize(text)})
    if not found.words:
        raise InvalidData(f"{path} has a vector for no word of the captions")
    return _keyed(found), found.problems


def _keyed(found: Found) -> WordVectors:
    keyed = KeyedVectors(found.matrix.shape[1])
    keyed.add_vectors(found.words, found.matrix)
    return WordVectors(keyed)


@dataclass(frozen=True)
class _Sentences:
    """The tokens of texts, tokenized again each time gensim iterates over them."""

    texts: Sequence[str]

    def __iter__(self) -> Iterator[list[str]]:
        return map(tokenize, self.texts)


def vocabulary(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the words of `texts` frequent enough to be learned, the most frequent first."""
    counts = Counter(token for text in texts for token in tokenize(text))
    often = [word for word, count in counts.items() if count >= _least(texts)]
    return tuple(sorted(often, key=lambda word: (-counts[word], word)))


def _least(texts: Sequence[str]) -> int:
    return FEW if len(texts) >= ENOUGH else 1


def train_vectors(
    texts: Sequence[str], dim: int = 128, epochs: int = 10, seed: int = 1
) -> WordVectors:
    """Train skip-gram vectors of the words of `texts` that are frequent enough."""
    model = Word2Vec(
        _Sentences(texts),
        vector_size=dim,
        window=5,
        min_count=_least(texts),
        sg=1,
        negative=5,
        epochs=epochs,
        seed=seed,
        workers=1,  # gensim is only repeatable with one thread
    )
    return WordVectors(model.wv)
