"""Word vectors: Mikolov et al. 2013, https://arxiv.org/abs/1301.3781, by gensim."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gensim.models import KeyedVectors, Word2Vec
from numpy.typing import NDArray

from crossmodal.errors import BundleInvalid, DataInvalid
from crossmodal.text.tokens import tokenize
from crossmodal.text.vectors import Encoded

COMMON = 500_000  # words of a large file that are read; the rest occur next to never
ENOUGH = 5_000  # captions, from which on a word must occur five times to be learned
FEW = 5


class WordVectors:
    """A vocabulary with one vector a word."""

    def __init__(self, keyed: KeyedVectors) -> None:
        self._keyed = keyed

    @property
    def dim(self) -> int:
        return int(self._keyed.vector_size)

    @property
    def words(self) -> list[str]:
        """All words, the most frequent one first."""
        return list(self._keyed.index_to_key)

    @property
    def matrix(self) -> NDArray[np.float32]:
        """All vectors, float32 (V, D), in the order of `words`."""
        return np.asarray(self._keyed.vectors, np.float32)

    def encode(self, text: str, max_words: int | None = None) -> Encoded:
        """The vectors of the first `max_words` known words of `text`, in their order."""
        tokens = tokenize(text)
        known = [t for t in tokens if t in self._keyed][:max_words]
        unknown = tuple(dict.fromkeys(t for t in tokens if t not in self._keyed))
        vectors = [self._keyed[t] for t in known]
        stacked = np.array(vectors, np.float32).reshape(len(known), self.dim)
        return Encoded(stacked, unknown)

    def only(self, words: Collection[str]) -> "WordVectors":
        """The vectors of `words` alone, in the order they had."""
        kept = [word for word in self.words if word in words]
        chosen = KeyedVectors(self.dim)
        if kept:
            chosen.add_vectors(kept, [self._keyed[word] for word in kept])
        return WordVectors(chosen)

    def save(self, path: Path) -> None:
        """Write word2vec's own binary format."""
        self._keyed.save_word2vec_format(str(path), binary=True)


def load_vectors(path: Path) -> WordVectors:
    """Read word2vec's binary format, as the GoogleNews vectors come in."""
    try:
        keyed = KeyedVectors.load_word2vec_format(str(path), binary=True, limit=COMMON)
        if not keyed.vectors.size or not np.isfinite(keyed.vectors).all():
            raise ValueError("it holds no vectors of numbers")
    except (OSError, ValueError, EOFError, MemoryError) as e:
        raise BundleInvalid(f"{path} is not a file of word2vec's binary format: {e}") from e
    return WordVectors(keyed)


def vectors_for(path: Path, texts: Iterable[str]) -> WordVectors:
    """The vectors that a word2vec file has for the words of `texts`."""
    said = {token for text in texts for token in tokenize(text)}
    vectors = load_vectors(path).only(said)
    if not vectors.words:
        raise DataInvalid(f"{path} has a vector for no word of the captions")
    return vectors


@dataclass(frozen=True)
class _Sentences:
    """The tokens of texts, made anew each time that gensim reads them."""

    texts: Sequence[str]

    def __iter__(self) -> Iterator[list[str]]:
        return map(tokenize, self.texts)


def vocabulary(texts: Sequence[str]) -> tuple[str, ...]:
    """Words of `texts` that occur often enough to be learned, the most frequent first."""
    counts = Counter(token for text in texts for token in tokenize(text))
    often = [word for word, count in counts.items() if count >= _least(texts)]
    return tuple(sorted(often, key=lambda word: (-counts[word], word)))


def _least(texts: Sequence[str]) -> int:
    return FEW if len(texts) >= ENOUGH else 1


def train_vectors(
    texts: Sequence[str], dim: int = 64, epochs: int = 10, seed: int = 1
) -> WordVectors:
    """Skip-gram vectors of the words of `texts`; of many texts, of words that occur five times."""
    model = Word2Vec(
        _Sentences(texts), vector_size=dim, window=5, min_count=_least(texts), sg=1, negative=5,
        epochs=epochs, seed=seed, workers=1,
    )  # fmt: skip  # one worker: gensim is repeatable only with a single thread
    return WordVectors(model.wv)
