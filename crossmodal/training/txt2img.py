"""Train the text-conditioned VAE: reconstruction, divergence, and grounding where boxes are known.

crossmodal train txt2img --dataset scenes --out runs/scenes --minutes 30
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from crossmodal.datasets.base import Dataset, Example
from crossmodal.models.vae import (
    BOX,
    SceneVAE,
    VAEConfig,
    boxes_divergence,
    shade_divergence,
)
from crossmodal.text.word2vec import WordVectors
from crossmodal.training.batches import batched, padded, pictures, prefetched

BATCH = 48
PIXEL_WEIGHT = 100.0
BOX_WEIGHT = 20.0
KL_WEIGHT = 0.04
LOW_SIDE, LOW_UNTIL = 64, 0.6  # cheap pictures first; edges are learned at full size


@dataclass(frozen=True)
class Batch:
    """Pictures (B, 3, H, W), word vectors (B, T, D), their mask, boxes (B, S, 3), which exist."""

    images: Tensor
    words: Tensor
    keep: Tensor
    boxes: Tensor
    present: Tensor


def new_model(words: WordVectors, config: VAEConfig) -> SceneVAE:
    """A model with fresh weights, its whitening fitted to the vocabulary."""
    model = SceneVAE(config)
    model.planner.encoder.whitening.fit(torch.from_numpy(words.matrix))
    return model


def batches(data: Dataset, words: WordVectors, config: VAEConfig, seed: int) -> Iterator[Batch]:
    """Endless training batches; each picture comes with one of its captions."""
    rng = np.random.default_rng(seed)

    def collate(examples: list[Example]) -> Batch:
        captions = [e.captions[int(rng.integers(len(e.captions)))] for e in examples]
        texts = [words.encode(c.text, config.text.max_words).vectors for c in captions]
        boxes, present = _boxes([c.boxes for c in captions], config.objects)
        return Batch(pictures([e.image for e in examples]), *padded(texts), boxes, present)

    return prefetched(batched(data.examples("train", seed), BATCH, collate))


def _boxes(boxes: list[NDArray[np.float32] | None], slots: int) -> tuple[Tensor, Tensor]:
    """Known boxes (B, S, 3) and, per slot, 1 present, 0 absent, -1 not known."""
    known = torch.zeros(len(boxes), slots, BOX)
    present = torch.full((len(boxes), slots), -1.0)
    for i, box in enumerate(boxes):
        if box is not None:
            present[i] = 0
            known[i, : len(box)] = torch.from_numpy(box[:slots])
            present[i, : len(box)] = 1
    return known, present


def loss_of(model: SceneVAE, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
    """The negative evidence bound, plus how far the posterior is from boxes that are known."""
    side = LOW_SIDE if progress < LOW_UNTIL else model.config.side
    images = F.interpolate(batch.images, size=side, mode="area")
    # Half of the known boxes are decoded as they are: masks are learned sharp, although the
    # posterior is off by a pixel.
    exact = (batch.present == 1) & (torch.rand(len(images), 1) < 0.5)
    drawn, plan, q = model.reconstruct(images, batch.words, batch.keep, batch.boxes, exact)
    pixels = F.mse_loss(drawn, images)
    kl = (boxes_divergence(q, plan) + shade_divergence(q)).mean()
    found = q.boxes.view_as(batch.boxes)
    there = (batch.present == 1).float()
    grounding = ((found - batch.boxes).abs().mean(-1) * there).sum() / there.sum().clamp_min(1)
    labeled = (batch.present >= 0).float()
    presence = F.binary_cross_entropy_with_logits(plan.presence, there, weight=labeled)
    loss = PIXEL_WEIGHT * pixels + KL_WEIGHT * kl + BOX_WEIGHT * grounding + presence
    return loss, {"pixels": pixels, "kl": kl, "grounding": grounding, "presence": presence}
