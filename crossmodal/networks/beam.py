"""Beam search over a `Captioner`, for a whole batch at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from crossmodal.networks.captioner import END, Captioner, CaptionerConfig

UNLIMITED = 1_000_000
AT_ONCE = {"cpu": 4}  # pictures that are encoded at once; on a CPU, more are no faster


@dataclass(frozen=True)
class Limits:
    """One picture's search: `width` beams of at most `max_words`; the best `count` are kept."""

    width: int
    max_words: int
    count: int


@dataclass(frozen=True)
class Hypothesis:
    """Word ids without the end mark, and the log-probability of the whole caption."""

    words: tuple[int, ...]
    log_probability: float


@torch.inference_mode()
def search(
    model: Captioner,
    images: Tensor,
    limits: Sequence[Limits],
    step: Callable[[int, int], None] = lambda done, of: None,
) -> list[list[Hypothesis]]:
    """The best captions of each picture, best first, as many as its limits want.

    images uint8 (B, 3, side, side). A beam that reaches `max_words` is cut there. Each picture
    is searched as if it were alone: one with a smaller width has no more beams than that. No
    word is said more often than the model's config has it, or after itself.
    `step` is told every few milliseconds how many of at most how many words are found.
    """

    K, V = max(x.width for x in limits), len(model.config.words)
    device = images.device
    width, max_words, count = torch.tensor(
        [(x.width, x.max_words, x.count) for x in limits], device=device
    ).T[..., None]  # each (B, 1)
    rank = torch.arange(K, device=device)
    too_many, wanted = rank >= width, rank < count  # (B, K)
    longest = max(x.max_words for x in limits)
    features = _encoded(model, images, lambda: step(0, longest))  # (B, N, W)
    keys = model.decoder.keys(features)
    state = model.decoder.begin(features, K)
    scores = torch.full(too_many.shape, float("-inf"), device=device)  # (B, K), best first
    scores[:, 0] = 0  # all beams start alike: let only one of them branch
    ended = torch.zeros_like(too_many)
    stay = torch.full((V,), float("-inf"), device=device)  # an ended beam stays as it is
    stay[END] = 0
    steps: list[tuple[Tensor, Tensor]] = []  # of each length: which beams went on, with which word
    last = torch.full_like(too_many, END, dtype=torch.long)
    said = WordCounts.none(model.config, len(images), K, device)
    for length in range(1, longest + 1):
        step(length - 1, longest)
        logits, state = model.decoder.step(last, state, features, keys)
        added = said.limit(logits.log_softmax(-1))  # (B, K, V)
        added = torch.where(ended[..., None], stay, added)
        scores, index = (scores[..., None] + added).flatten(1).topk(K)
        scores = scores.masked_fill(too_many, float("-inf"))
        beam, last = index // V, index % V  # (B, K)
        steps.append((beam, last))
        said = said.with_next(beam, last)
        ended = ended.gather(1, beam) | (last == END) | (length >= max_words)
        # A beam only ever gets less likely: those that have ended first are overtaken by none.
        if bool((ended | ~wanted).all()):
            break
        state = state.select(beam)
    rows = zip(_words(steps).tolist(), scores.tolist(), limits, strict=True)
    return [_hypotheses(w, s)[: x.count] for w, s, x in rows]


@dataclass(frozen=True)
class WordCounts:
    """How often each beam has said each word, (B, K, V), and which one last, (B, K).

    A word may be said so often, (V,), and after itself where it `may_double`, (V,).
    """

    counts: Tensor
    last: Tensor
    most: Tensor
    may_double: Tensor

    @classmethod
    def none(cls, config: CaptionerConfig, B: int, K: int, device: torch.device) -> Self:
        most = torch.tensor(config.most or [UNLIMITED] * len(config.words), device=device)
        may_double = torch.tensor([w in config.doubled for w in config.words], device=device)
        counts = torch.zeros(B, K, len(config.words), dtype=torch.int16, device=device)
        return cls(counts, torch.full((B, K), END, device=device), most, may_double)

    def limit(self, scores: Tensor) -> Tensor:
        """The scores (B, K, V) of the next word, of none that has been said too often."""
        again = F.one_hot(self.last, scores.shape[-1]).bool() & ~self.may_double  # (B, K, V)
        barred = again | (self.counts >= self.most)
        barred[..., END] = False
        return scores.masked_fill(barred, float("-inf"))

    def with_next(self, beam: Tensor, word: Tensor) -> "WordCounts":
        """After the beams that went on, (B, K), have each said a word, (B, K)."""
        counts = self.counts.gather(1, beam[..., None].expand_as(self.counts))
        counts = counts.scatter_add(
            2, word[..., None], torch.ones_like(word, dtype=torch.int16)[..., None]
        )
        return WordCounts(counts, word, self.most, self.may_double)


def _words(steps: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The words (B, K, T) of the beams that were left, followed back to their beginnings."""
    words: list[Tensor] = []
    beam = torch.arange(steps[0][0].shape[1], device=steps[0][0].device).expand_as(steps[0][0])
    for came_from, word in reversed(steps):
        words.append(word.gather(1, beam))
        beam = came_from.gather(1, beam)
    return torch.stack(words[::-1], -1)


def _encoded(model: Captioner, images: Tensor, pause: Callable[[], None]) -> Tensor:
    size = AT_ONCE.get(images.device.type, len(images))
    features = []
    for first in range(0, len(images), size):
        pause()
        features.append(model.encoder(images[first : first + size]))
    return torch.cat(features)


def _hypotheses(words: list[list[int]], scores: list[float]) -> list[Hypothesis]:
    found = []
    for ids, score in zip(words, scores, strict=True):
        if score > float("-inf"):
            end = ids.index(END) if END in ids else len(ids)
            found.append(Hypothesis(tuple(ids[:end]), score))
    return found
