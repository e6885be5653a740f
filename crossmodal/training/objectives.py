"""The losses of all models, given a batch and the fraction of the run that is spent."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from crossmodal.networks.captioner import Captioner
from crossmodal.networks.critic import Critic, critic_loss, deception_loss
from crossmodal.networks.picture_vae import PictureVAE
from crossmodal.networks.scene_vae import (
    Choices,
    Plan,
    SceneVAE,
    boxes_divergence,
    shade_divergence,
)
from crossmodal.text.tokens import tokenize
from crossmodal.text.vectors import TextVectors
from crossmodal.training.batches import Batch

Losses = tuple[Tensor, dict[str, Tensor]]  # the loss to minimize, and the metrics to log
Words = tuple[Tensor, Tensor]  # vectors (B, T, D) and their mask (B, T), False for padding

# SceneVAE: pixels have a large weight, as most of them are background.
PIXEL_WEIGHT, BOX_WEIGHT, KL_WEIGHT = 100.0, 20.0, 0.04
LOW_SIDE, LOW_UNTIL = 64, 0.6  # start with small, cheap pictures; learn edges at full size
# PictureVAE: pixels are Gaussian with this deviation; the KL weight is annealed from 0 to 1.
PIXEL_STD, KL_FADED_IN = 0.1, 0.3
DECEPTION_WEIGHT, CRITIC_FROM = 0.05, 0.3  # the critic starts once pictures have taken shape
MAX_CAPTION = 40  # words; captions are truncated for training


def vectors_of(texts: Sequence[str], source: TextVectors, max_words: int) -> Words:
    """Encode texts as padded vectors (B, T, D) and their mask (B, T)."""
    found = [source.encode(text, max_words).vectors for text in texts]
    return padded(found, source.dim)


def padded(vectors: Sequence[NDArray[np.float32]], dim: int) -> Words:
    """Pad ragged vectors, each (T, D), to (B, T, D) and return them with their mask (B, T)."""
    longest = max(1, *(len(v) for v in vectors))
    words = torch.zeros(len(vectors), longest, dim)
    keep = torch.zeros(len(vectors), longest, dtype=torch.bool)
    for i, v in enumerate(vectors):
        words[i, : len(v)] = torch.from_numpy(v)
        keep[i, : len(v)] = True
    return words, keep


@dataclass
class SceneObjective:
    """The negative ELBO of a scene, plus the posterior's distance from known boxes."""

    model: SceneVAE
    source: TextVectors
    whole: bool = False  # train at full size from the first step
    drawn: Tensor = field(init=False)
    real: Tensor = field(init=False)

    def loss(self, batch: Batch, spent: float) -> Losses:
        config = self.model.config
        words, keep = _on(vectors_of(batch.texts, self.source, config.text.max_words), batch)
        side = config.side if self.whole or spent >= LOW_UNTIL else min(LOW_SIDE, config.side)
        images = F.interpolate(batch.pictures(), size=side, mode="area")
        # Decode half of the objects from their known boxes: masks become sharp even while
        # posterior boxes are off by a pixel.
        coin = torch.rand(len(images), 1, device=images.device) < 0.5
        there = batch.present == 1
        made = Choices(there, batch.shapes, batch.colors, batch.ground)
        drawn, plan, q = self.model.reconstruct(
            images, words, keep, made, batch.boxes, there & coin
        )
        pixels = F.mse_loss(drawn.float(), images)
        kl = (boxes_divergence(q, plan) + shade_divergence(q)).mean()
        off = (q.boxes.view_as(batch.boxes) - batch.boxes).abs().mean(-1)
        grounding = off[there].sum() / there.sum().clamp_min(1)
        presence = F.binary_cross_entropy_with_logits(plan.presence, there.float())
        choices = presence + self._surprise(plan, made)
        loss = PIXEL_WEIGHT * pixels + KL_WEIGHT * kl + BOX_WEIGHT * grounding + choices
        self.drawn, self.real = drawn, images
        return loss, {
            "loss": loss,
            "pixels": pixels,
            "kl": kl,
            "grounding": grounding,
            "choices": choices,
        }

    def _surprise(self, plan: Plan, made: Choices) -> Tensor:
        """Return the negative log-likelihood of the choices given the text, in nats (means)."""
        colors = self.model.color_logits(plan, made.ground)
        there = made.present
        return (
            F.cross_entropy(plan.shape[there], made.shapes[there])
            + F.cross_entropy(colors[there], made.colors[there])
            + F.cross_entropy(plan.ground, made.ground)
        )


@dataclass
class PictureObjective:
    """The negative ELBO of a picture with Gaussian pixels, in nats per color value."""

    model: PictureVAE
    source: TextVectors
    drawn: Tensor = field(init=False)
    real: Tensor = field(init=False)

    def loss(self, batch: Batch, spent: float) -> Losses:
        config = self.model.config
        words, keep = _on(vectors_of(batch.texts, self.source, config.text.max_words), batch)
        images = F.interpolate(batch.pictures(), size=config.side, mode="area")
        drawing = self.model.reconstruct(images, words, keep)
        pixels = F.mse_loss(drawing.pictures.float(), images)
        kl = drawing.divergence.sum(1).mean() / images[0].numel()
        fade = min(1.0, spent / KL_FADED_IN)
        loss = pixels / (2 * PIXEL_STD**2) + fade * kl
        self.drawn, self.real = drawing.pictures, images
        return loss, {"loss": loss, "pixels": pixels, "kl": kl}


@dataclass
class Deceiving:
    """The objective of a VAE-GAN: a text-to-image objective with a critic."""

    objective: "SceneObjective | PictureObjective"
    critic: Critic

    def loss(self, batch: Batch, spent: float) -> Losses:
        """Return the loss of the text-to-image model."""
        loss, metrics = self.objective.loss(batch, spent)
        if spent >= CRITIC_FROM:
            deception = deception_loss(self.critic, self.objective.drawn)
            loss = loss + DECEPTION_WEIGHT * deception
            metrics = metrics | {"loss": loss, "deception": deception}
        return loss, metrics

    def critic_loss(self, batch: Batch, spent: float) -> Losses:
        """Return the loss of the critic, on the pictures drawn in the same step."""
        loss = critic_loss(self.critic, self.objective.real, self.objective.drawn.detach().float())
        return loss, {"critic": loss}


@dataclass
class CaptionObjective:
    """Cross-entropy per word; `whole` is the fraction of captions predicted without a mistake."""

    model: Captioner

    def __post_init__(self) -> None:
        self._ids = {word: i for i, word in enumerate(self.model.config.words)}

    def loss(self, batch: Batch, spent: float) -> Losses:
        captions, keep = _on(self._captions(batch.texts), batch)
        loss, whole = self.model.loss(batch.images, captions, keep)
        return loss, {"loss": loss, "whole": whole}

    def _captions(self, texts: Sequence[str]) -> Words:
        """Return word ids (B, T), each caption ended by `END`, and their mask (B, T)."""
        known = [[self._ids[t] for t in tokenize(text) if t in self._ids] for text in texts]
        known = [ids[:MAX_CAPTION] for ids in known]
        longest = max(map(len, known)) + 1
        captions = torch.zeros(len(known), longest, dtype=torch.long)
        keep = torch.zeros(len(known), longest, dtype=torch.bool)
        for i, ids in enumerate(known):
            captions[i, : len(ids)] = torch.tensor(ids, dtype=torch.long)
            keep[i, : len(ids) + 1] = True  # the end mark is a target too
        return captions, keep


def _on(pair: Words, batch: Batch) -> Words:
    return pair[0].to(batch.images.device), pair[1].to(batch.images.device)
