"""The losses: what each model is trained for, given a batch and how much of the run is spent."""

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

Losses = tuple[Tensor, dict[str, Tensor]]  # what is lowered, and the figures that are logged
Words = tuple[Tensor, Tensor]  # vectors (B, T, D) and the mask (B, T) of what is not padding

# SceneVAE: a pixel counts for much, as most of them are background.
PIXEL_WEIGHT, BOX_WEIGHT, KL_WEIGHT = 100.0, 20.0, 0.04
LOW_SIDE, LOW_UNTIL = 64, 0.6  # cheap pictures first; edges are learned at full size
# PictureVAE: pixels are Gaussian with this deviation; the divergence is faded in.
PIXEL_STD, KL_FADED_IN = 0.1, 0.3
DECEPTION_WEIGHT, CRITIC_FROM = 0.05, 0.3  # the critic joins once there is something to judge
MAX_CAPTION = 40  # words of a caption that are learned


def vectors_of(texts: Sequence[str], source: TextVectors, max_words: int) -> Words:
    """Texts -> padded vectors and their mask."""
    found = [source.encode(text, max_words).vectors for text in texts]
    return padded(found, source.dim)


def padded(vectors: Sequence[NDArray[np.float32]], dim: int) -> Words:
    """Ragged vectors, each (T, D) -> (B, T, D) and the mask (B, T)."""
    longest = max(1, *(len(v) for v in vectors))
    words = torch.zeros(len(vectors), longest, dim)
    keep = torch.zeros(len(vectors), longest, dtype=torch.bool)
    for i, v in enumerate(vectors):
        words[i, : len(v)] = torch.from_numpy(v)
        keep[i, : len(v)] = True
    return words, keep


@dataclass
class SceneObjective:
    """The negative evidence bound, and how far the posterior is from boxes that are known."""

    model: SceneVAE
    source: TextVectors
    whole: bool = False  # from the first step on at full size
    drawn: Tensor = field(init=False)
    real: Tensor = field(init=False)

    def loss(self, batch: Batch, spent: float) -> Losses:
        config = self.model.config
        words, keep = _on(vectors_of(batch.texts, self.source, config.text.max_words), batch)
        side = config.side if self.whole or spent >= LOW_UNTIL else min(LOW_SIDE, config.side)
        images = F.interpolate(batch.pictures(), size=side, mode="area")
        # Half of the known boxes are decoded as they are: masks are learned sharp, although
        # the posterior is off by a pixel.
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
        """How unlikely the text makes the picture's choices, in nats an object and background."""
        colors = self.model.color_logits(plan, made.ground)
        there = made.present
        return (
            F.cross_entropy(plan.shape[there], made.shapes[there])
            + F.cross_entropy(colors[there], made.colors[there])
            + F.cross_entropy(plan.ground, made.ground)
        )


@dataclass
class PictureObjective:
    """The negative evidence bound of a Gaussian picture, in nats a color value."""

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
    """A drawing objective with a critic beside it: a VAE-GAN."""

    objective: "SceneObjective | PictureObjective"
    critic: Critic

    def loss(self, batch: Batch, spent: float) -> Losses:
        """The drawing model's turn."""
        loss, metrics = self.objective.loss(batch, spent)
        if spent >= CRITIC_FROM:
            deception = deception_loss(self.critic, self.objective.drawn)
            loss = loss + DECEPTION_WEIGHT * deception
            metrics = metrics | {"loss": loss, "deception": deception}
        return loss, metrics

    def critic_loss(self, batch: Batch, spent: float) -> Losses:
        """The critic's turn, on the pictures that were just drawn."""
        loss = critic_loss(self.critic, self.objective.real, self.objective.drawn.detach().float())
        return loss, {"critic": loss}


@dataclass
class CaptionObjective:
    """Cross-entropy a word; `whole` is the fraction of captions predicted without a mistake."""

    model: Captioner

    def __post_init__(self) -> None:
        self._ids = {word: i for i, word in enumerate(self.model.config.words)}

    def loss(self, batch: Batch, spent: float) -> Losses:
        captions, keep = _on(self._captions(batch.texts), batch)
        loss, whole = self.model.loss(batch.images, captions, keep)
        return loss, {"loss": loss, "whole": whole}

    def _captions(self, texts: Sequence[str]) -> Words:
        """Word ids (B, T), each caption ended by `END`, and what is no padding."""
        known = [[self._ids[t] for t in tokenize(text) if t in self._ids] for text in texts]
        known = [ids[:MAX_CAPTION] for ids in known]
        longest = max(map(len, known)) + 1
        captions = torch.zeros(len(known), longest, dtype=torch.long)
        keep = torch.zeros(len(known), longest, dtype=torch.bool)
        for i, ids in enumerate(known):
            captions[i, : len(ids)] = torch.tensor(ids, dtype=torch.long)
            keep[i, : len(ids) + 1] = True  # the end mark is learned too
        return captions, keep


def _on(pair: Words, batch: Batch) -> Words:
    return pair[0].to(batch.images.device), pair[1].to(batch.images.device)
