"""Beam search over a `Captioner`, for a whole batch at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossmodal.models.captioner import END, Captioner


@dataclass(frozen=True)
class Hypothesis:
    """Word ids without the end mark, and the log-probability of the whole caption."""

    words: tuple[int, ...]
    log_probability: float


@torch.inference_mode()
def search(model: Captioner, images: Tensor, width: int, max_words: int) -> list[list[Hypothesis]]:
    """The `width` best captions of each picture, best first.

    images uint8 (B, 3, side, side). A beam that reaches `max_words` is cut there.
    """
    B, K, V = len(images), width, len(model.config.words)
    features = model.encoder(images).repeat_interleave(K, 0)  # (B * K, N, W)
    keys = model.decoder.keys(features)
    state = model.decoder.begin(features)
    device = images.device
    base = torch.arange(B, device=device)[:, None] * K  # first row of each picture
    scores = torch.full((B, K), float("-inf"), device=device)
    scores[:, 0] = 0  # all beams start alike: let only one of them branch
    ended = torch.zeros(B, K, dtype=torch.bool, device=device)
    words = torch.zeros(B, K, 0, dtype=torch.long, device=device)
    last = torch.full((B * K,), END, device=device)
    for _ in range(max_words):
        logits, state = model.decoder.step(last, state, features, keys)
        step = logits.log_softmax(-1).view(B, K, V)
        step = step.masked_fill(ended[..., None], float("-inf"))
        step[..., END] = torch.where(ended, 0.0, step[..., END])  # an ended beam stays as it is
        scores, index = (scores[..., None] + step).view(B, K * V).topk(K)
        beam, word = index // V, index % V  # (B, K)
        words = torch.cat([words.gather(1, beam[..., None].expand_as(words)), word[..., None]], 2)
        ended = ended.gather(1, beam) | (word == END)
        state = state.select((base + beam).view(-1))
        last = word.view(-1)
        if bool(ended.all()):
            break
    return [_hypotheses(w, s) for w, s in zip(words.tolist(), scores.tolist(), strict=True)]


def _hypotheses(words: list[list[int]], scores: list[float]) -> list[Hypothesis]:
    found = []
    for ids, score in zip(words, scores, strict=True):
        if score > float("-inf"):
            end = ids.index(END) if END in ids else len(ids)
            found.append(Hypothesis(tuple(ids[:end]), score))
    return found
