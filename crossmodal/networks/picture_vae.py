"""A text-conditioned variational autoencoder for any pictures, photographs too.

A small ladder of latents, coarse to fine, as in the very deep VAE (Child 2020,
https://arxiv.org/abs/2011.10650): each is conditioned on the coarser ones and, by attention in
every block, on the words. With one grid of one cell it is the classic VAE with a flat latent.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossmodal.networks.sizes import Count, Size
from crossmodal.networks.text_encoder import TextEncoder, TextEncoderConfig

STEM_SIDE = 32  # the stem strides pictures down to about this side
NORM_GROUPS = 8
MIN_WIDTH = 16  # min channels, at full resolution


@dataclass(frozen=True)
class PictureVAEConfig:
    """Architecture of a `PictureVAE`; `side` is the height and width of its pictures.

    `grids` are the sides of the latent grids, ascending; each has `blocks` latents of `latent`
    channels. Beyond the finest grid, each doubling halves the `width`, down to `MIN_WIDTH`.
    """

    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    kind: Literal["picture"] = "picture"
    side: Size = 64
    grids: tuple[Size, ...] = (4, 8, 16)
    blocks: Count = 2
    latent: Size = 8
    width: Size = 64
    questions: Size = 8
    things: tuple[str, ...] = ()
    """Words that name what it can draw."""


@dataclass(frozen=True)
class Drawing:
    """Reconstructions (B, 3, side, side) and the KL divergence of each latent, (B, L)."""

    pictures: Tensor
    divergence: Tensor


class Residual(nn.Module):
    """A residual block of two convolutions, (B, C, h, w) -> (B, C, h, w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(NORM_GROUPS, width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(NORM_GROUPS, width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """The bottom-up encoder: pictures -> features on each grid, returned coarsest first."""

    def __init__(self, config: PictureVAEConfig) -> None:
        super().__init__()
        width = config.width
        self.grids = config.grids
        self.stem = nn.Conv2d(3, width, 5, stride=max(1, config.side // STEM_SIDE), padding=2)
        self.blocks = nn.ModuleList(
            nn.Sequential(Residual(width), nn.Conv2d(width, width, 3, padding=1))
            for _ in self.grids
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.stem(images - 0.5)
        found = []
        for block, grid in zip(self.blocks, reversed(self.grids), strict=True):
            x = block(F.adaptive_avg_pool2d(x, grid))  # (B, W, grid, grid)
            found.append(x)
        return found[::-1]


class Rung(nn.Module):
    """One latent of the ladder: attends to the words, draws z given coarser latents, adds it."""

    def __init__(self, config: PictureVAEConfig) -> None:
        super().__init__()
        width, latent = config.width, config.latent
        self.read = nn.MultiheadAttention(
            width, 4, kdim=config.text.width, vdim=config.text.width, batch_first=True
        )
        self.prior = nn.Sequential(Residual(width), nn.Conv2d(width, 2 * latent, 1))
        self.posterior = nn.Sequential(
            nn.Conv2d(2 * width, width, 1), Residual(width), nn.Conv2d(width, 2 * latent, 1)
        )
        self.add = nn.Conv2d(latent, width, 1)
        self.after = Residual(width)

    def conditioned(self, x: Tensor, slots: Tensor) -> Tensor:
        """Return features (B, W, h, w) after each cell attends to the text's slots (B, S, C)."""
        cells = x.flatten(2).transpose(1, 2)  # (B, h * w, W)
        read, _ = self.read(cells, slots, slots, need_weights=False)
        return x + read.transpose(1, 2).view_as(x)  # type: ignore[no-any-return]

    def draw(self, x: Tensor, noise: Tensor) -> Tensor:
        """Add z drawn from the prior by noise (B, Z, h, w)."""
        mean, log_std = self._gaussian(self.prior(x))
        return self.after(x + self.add(mean + noise * log_std.exp()))  # type: ignore[no-any-return]

    def infer(self, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Add z drawn from the posterior, given the picture's features; return its KL (B,) too."""
        mean, log_std = self._gaussian(self.prior(x))
        q_mean, q_log_std = self._gaussian(self.posterior(torch.cat([x, seen], 1)))
        z = q_mean + torch.randn_like(q_mean) * q_log_std.exp()
        x = self.after(x + self.add(z))
        return x, _divergence(q_mean.float(), q_log_std.float(), mean.float(), log_std.float())

    @staticmethod
    def _gaussian(parameters: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = parameters.chunk(2, 1)
        return mean, 4 * torch.tanh(log_std / 4)


def _divergence(q_mean: Tensor, q_log: Tensor, mean: Tensor, log: Tensor) -> Tensor:
    """Return the KL divergence of two diagonal Gaussians, summed over all but the batch."""
    ratio = (2 * (q_log - log)).exp() + ((q_mean - mean) * (-log).exp()).square()
    return (0.5 * (ratio - 1) + log - q_log).flatten(1).sum(1)


class PictureVAE(nn.Module):
    """The VAE: `reconstruct` to train on pairs, `sample` to draw from the prior."""

    def __init__(self, config: PictureVAEConfig) -> None:
        super().__init__()
        self.config = config
        width, first = config.width, config.grids[0]
        self.text = TextEncoder(config.text, slots=config.questions)
        self.encoder = Encoder(config)
        self.start = nn.Parameter(torch.randn(width, first, first) * 0.1)
        self.topic = nn.Linear(config.text.width, width)
        self.rungs = nn.ModuleList(Rung(config) for _ in config.grids for _ in range(config.blocks))
        widths = [
            max(MIN_WIDTH, (width >> i) // NORM_GROUPS * NORM_GROUPS)
            for i in range(_doublings(config) + 1)
        ]
        self.paint = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 1), Residual(b)) for a, b in pairwise(widths)
        )
        last = widths[-1]
        self.out = nn.Sequential(
            nn.GroupNorm(NORM_GROUPS, last), nn.GELU(), nn.Conv2d(last, 3, 3, padding=1)
        )

    @property
    def latent_dim(self) -> int:
        c = self.config
        return sum(c.blocks * c.latent * grid * grid for grid in c.grids)

    def sample(self, words: Tensor, keep: Tensor, noise: Tensor) -> Tensor:
        """Draw pictures (B, 3, side, side) in [0, 1] by standard-normal `noise` (B, latent_dim)."""
        slots = self.text(words, keep)
        x = self._begin(slots)
        start = 0
        for grid, rung in self._ladder():
            size = self.config.latent * grid * grid
            part = noise[:, start : start + size].view(-1, self.config.latent, grid, grid)
            x = rung.draw(rung.conditioned(_resized(x, grid), slots), part)
            start += size
        return self._painted(x)

    def reconstruct(self, images: Tensor, words: Tensor, keep: Tensor) -> Drawing:
        """Reconstruct `images` (B, 3, side, side) from latents of the posterior."""
        slots = self.text(words, keep)
        x = self._begin(slots)
        seen = dict(zip(self.config.grids, self.encoder(images), strict=True))
        divergence = []
        for grid, rung in self._ladder():
            x, kl = rung.infer(rung.conditioned(_resized(x, grid), slots), seen[grid])
            divergence.append(kl)
        return Drawing(self._painted(x), torch.stack(divergence, 1))

    def _ladder(self) -> Iterator[tuple[int, Rung]]:
        for i, rung in enumerate(self.rungs):
            assert isinstance(rung, Rung)  # noqa: S101 - nn.ModuleList is not generic
            yield self.config.grids[i // self.config.blocks], rung

    def _begin(self, slots: Tensor) -> Tensor:
        topic: Tensor = self.topic(slots.mean(1))  # (B, W)
        return self.start + topic[:, :, None, None]  # (B, W, g, g)

    def _painted(self, x: Tensor) -> Tensor:
        for block in self.paint:
            x = block(_resized(x, min(2 * x.shape[-1], self.config.side)))
        return torch.sigmoid(self.out(_resized(x, self.config.side)))


def _doublings(config: PictureVAEConfig) -> int:
    """Return how often the finest grid is doubled to reach the picture's side."""
    return max(0, (config.side // config.grids[-1]).bit_length() - 1)


def _resized(x: Tensor, side: int) -> Tensor:
    return x if x.shape[-1] == side else F.interpolate(x, size=side, mode="nearest")
