"""Coverage: how many words of captions a vocabulary contains."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Self

from crossmodal.text.tokens import tokenize

NAMED = 5  # unknown words to list
FEW = 0.5  # fraction of tokens; with fewer known, a model cannot learn the captions


@dataclass(frozen=True)
class Coverage:
    """The number of distinct words and of `known` ones, and the `share` of known tokens."""

    words: int
    known: int
    share: float
    unknown: tuple[str, ...]  # the most frequent ones

    @classmethod
    def of(cls, vocabulary: Collection[str], texts: Iterable[str]) -> Self:
        counts = Counter(token for text in texts for token in tokenize(text))
        unknown = Counter({w: count for w, count in counts.items() if w not in vocabulary})
        said = max(1, counts.total())
        most = tuple(word for word, _ in unknown.most_common(NAMED))
        known = len(counts) - len(unknown)
        return cls(len(counts), known, 1 - unknown.total() / said, most)

    @property
    def is_poor(self) -> bool:
        return self.share < FEW

    def __str__(self) -> str:
        told = f"{self.known} of the {self.words} words of the captions have vectors"
        if not self.unknown:
            return told
        more = ", …" if self.words - self.known > len(self.unknown) else ""
        return f"{told}, {self.share:.1%} of all tokens; unknown: {', '.join(self.unknown)}{more}"
