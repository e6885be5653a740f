"""Word vectors: Mikolov et al. 2013, https://arxiv.org/abs/1301.3781, by gensim."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gensim.models import KeyedVectors, Word2Vec
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import extractOne

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
        suggestions = {word: near for word in unknown if (near := self.nearest(word))}
        vectors = [self._keyed[t] for t in known]
        stacked = np.array(vectors, np.float32).reshape(len(known), self.dim)
        return Encoded(stacked, unknown, suggestions)

    def nearest(self, word: str) -> str | None:
        """The known word that is fewest edits away, if these are no more than half of `word`."""
        limit = max(1, len(word) // 2)
        found = extractOne(
            word, self._keyed.index_to_key, scorer=Levenshtein.distance, score_cutoff=limit
        )
        return found[0] if found else None

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
        return WordVectors(KeyedVectors.load_word2vec_format(str(path), binary=True, limit=COMMON))
    except (OSError, ValueError, EOFError) as e:
        raise BundleInvalid(f"{path} is not a file of word2vec's binary format: {e}") from e


def vectors_for(path: Path, texts: Iterable[str]) -> WordVectors:
    """The vectors that a word2vec file has for the words of `texts`."""
    said = {token for text in texts for token in tokenize(text)}
    vectors = load_vectors(path).only(said)
    if not vectors.words:
        raise DataInvalid(f"{path} has a vector for no word of the captions")
    return vectors


@dataclass(frozen=True)
class _Sentences:
    """Tokens of texts that gensim reads more than once, and that are never held together."""

    texts: Callable[[], Iterator[str]]

    def __iter__(self) -> Iterator[list[str]]:
        return map(tokenize, self.texts())


def train_vectors(
    texts: Callable[[], Iterator[str]],
    captions: int,
    dim: int = 64,
    epochs: int = 10,
    seed: int = 1,
) -> WordVectors:
    """Skip-gram vectors of the words of `texts`, which counts `captions`.

    Of a large data set, words that occur fewer than five times are left out.
    """
    model = Word2Vec(
        _Sentences(texts), vector_size=dim, window=5, min_count=FEW if captions >= ENOUGH else 1,
        sg=1, negative=5, epochs=epochs, seed=seed, workers=1,
    )  # fmt: skip  # one worker: gensim is repeatable only with a single thread
    return WordVectors(model.wv)
