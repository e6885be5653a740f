"""Word vectors: Mikolov et al. 2013, https://arxiv.org/abs/1301.3781, by gensim."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gensim.models import KeyedVectors, Word2Vec
from numpy.typing import NDArray

from crossmodal.errors import BundleInvalid
from crossmodal.text.tokens import tokenize


@dataclass(frozen=True)
class Encoded:
    """A text as word vectors, float32 (T, D), and the words that had none."""

    vectors: NDArray[np.float32]
    unknown: tuple[str, ...]


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
        if not known:
            return Encoded(np.zeros((0, self.dim), np.float32), unknown)
        return Encoded(np.stack([self._keyed[t] for t in known]).astype(np.float32), unknown)

    def save(self, path: Path) -> None:
        """Write word2vec's own binary format."""
        self._keyed.save_word2vec_format(str(path), binary=True)


def load_vectors(path: Path) -> WordVectors:
    """Read word2vec's binary format, as the GoogleNews vectors come in."""
    try:
        return WordVectors(KeyedVectors.load_word2vec_format(str(path), binary=True))
    except (OSError, ValueError, EOFError) as e:
        raise BundleInvalid(f"{path} is not a file of word2vec's binary format: {e}") from e


def train_vectors(
    texts: Iterable[str], dim: int = 64, epochs: int = 10, seed: int = 1
) -> WordVectors:
    """Skip-gram vectors of every word that occurs at least five times in `texts`."""
    sentences = [tokenize(text) for text in texts]
    model = Word2Vec(
        sentences, vector_size=dim, window=5, min_count=5, sg=1, negative=5,
        epochs=epochs, seed=seed, workers=1,
    )  # fmt: skip  # one worker: gensim is repeatable only with a single thread
    return WordVectors(model.wv)
