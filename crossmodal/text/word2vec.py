"""Trains word vectors by gensim's word2vec (Mikolov et al. 2013, https://arxiv.org/abs/1301.3781)."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from gensim.models import Word2Vec

from crossmodal.text.tokens import tokenize
from crossmodal.text.word_vectors import WordVectors

ENOUGH = 5_000  # captions; from this number on, rare words are not learned
FEW = 5  # min occurrences of a word then


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
    matrix = np.asarray(model.wv.vectors, np.float32)
    return WordVectors(model.wv.index_to_key, matrix)
