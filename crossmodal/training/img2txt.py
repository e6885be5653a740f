"""Train the captioner to say all there is to say of a picture.

crossmodal train img2txt --dataset scenes --out runs/scenes --minutes 45
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from crossmodal.datasets.base import Dataset, Example
from crossmodal.models.captioner import Captioner, CaptionerConfig
from crossmodal.text.tokens import tokenize
from crossmodal.training.batches import batched, prefetched
from crossmodal.vision.preprocess import fit_square

BATCH = 32
END_MARK = "<end>"


@dataclass(frozen=True)
class Batch:
    """Pictures uint8 (B, 3, H, W), word ids (B, T) each ended by `END`, what is no padding."""

    images: Tensor
    captions: Tensor
    keep: Tensor


def vocabulary(words: list[str]) -> tuple[str, ...]:
    """The end mark, then every word that has a vector."""
    return (END_MARK, *words)


def batches(data: Dataset, config: CaptionerConfig, seed: int) -> Iterator[Batch]:
    """Endless training batches of pictures and their complete captions."""
    ids = {word: i for i, word in enumerate(config.words)}

    def collate(examples: list[Example]) -> Batch:
        images = np.stack([fit_square(e.image, config.side) for e in examples])
        texts = [[ids[t] for t in tokenize(e.captions[0].text) if t in ids] for e in examples]
        captions, keep = _padded(texts)
        return Batch(torch.from_numpy(images).permute(0, 3, 1, 2), captions, keep)

    return prefetched(batched(data.examples("train", seed), BATCH, collate))


def _padded(texts: list[list[int]]) -> tuple[Tensor, Tensor]:
    longest = max(len(t) for t in texts) + 1
    captions = torch.zeros(len(texts), longest, dtype=torch.long)
    keep = torch.zeros(len(texts), longest, dtype=torch.bool)
    for i, text in enumerate(texts):
        captions[i, : len(text)] = torch.tensor(text)
        keep[i, : len(text) + 1] = True  # the end mark is learned too
    return captions, keep


def loss_of(model: Captioner, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy a word; `whole` is the fraction of captions predicted without a mistake."""
    loss, whole = model.loss(batch.images, batch.captions, batch.keep)
    return loss, {"whole": whole}
