"""Beam search over a `Captioner`, for a whole batch at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from crossmodal.networks.captioner import END, Captioner, CaptionerConfig

UNLIMITED = 1_000_000
AT_ONCE = {"cpu": 4}  # pictures encoded at once; on a CPU, more are no faster


@dataclass(frozen=True)
class Limits:
    """The limits of a picture's search: beams, words per beam, and captions to return."""

    width: int
    max_words: int
    count: int


@dataclass(frozen=True)
class Hypothesis:
    """A caption: word ids without the end mark, and the log-probability of the whole."""

    words: tuple[int, ...]
    log_probability: float


@torch.inference_mode()
def search(
    model: Captioner,
    images: Tensor,
    limits: Sequence[Limits],
    step: Callable[[int, int], None] = lambda done, of: None,
) -> list[list[Hypothesis]]:
    """Return up to `count` captions of each picture, best first.

    images uint8 (B, 3, side, side). A beam is truncated at `max_words`. Each picture is
    searched as if alone, with no more beams than its own `width`. The model's config limits how
    often a word occurs, and whether it may follow itself.
    `step(done, total)` reports progress in words, every few milliseconds; `total` is the max.
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
    scores[:, 0] = 0  # all beams start equal: only one may branch
    ended = torch.zeros_like(too_many)
    stay = torch.full((V,), float("-inf"), device=device)  # an ended beam does not change
    stay[END] = 0
    steps: list[tuple[Tensor, Tensor]] = []  # for each length: parent beams and their next words
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
        # Scores only decrease: no open beam can overtake the `count` best once they have ended.
        if bool((ended | ~wanted).all()):
            break
        state = state.select(beam)
    rows = zip(_words(steps).tolist(), scores.tolist(), limits, strict=True)
    return [_hypotheses(w, s)[: x.count] for w, s, x in rows]


@dataclass(frozen=True)
class WordCounts:
    """The count of each word in each beam, (B, K, V), and each beam's last word, (B, K).

    `most` (V,) is the max count of a word in a caption; `may_double` (V,) allows it to follow
    itself.
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
        """Return the scores (B, K, V) of the next word, -inf for words that are not allowed."""
        again = F.one_hot(self.last, scores.shape[-1]).bool() & ~self.may_double  # (B, K, V)
        barred = again | (self.counts >= self.most)
        barred[..., END] = False
        return scores.masked_fill(barred, float("-inf"))

    def with_next(self, beam: Tensor, word: Tensor) -> "WordCounts":
        """Return the counts after the parent beams (B, K) are extended by one word each, (B, K)."""
        counts = self.counts.gather(1, beam[..., None].expand_as(self.counts))
        counts = counts.scatter_add(
            2, word[..., None], torch.ones_like(word, dtype=torch.int16)[..., None]
        )
        return WordCounts(counts, word, self.most, self.may_double)


def _words(steps: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the words (B, K, T) of the final beams, by backtracking through their parents."""
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
