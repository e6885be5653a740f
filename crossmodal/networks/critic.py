"""The discriminator of a VAE-GAN (Larsen et al. 2016, https://arxiv.org/abs/1512.09300)."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm


class Critic(nn.Module):
    """A patch discriminator: (B, 3, H, W) in [0, 1] -> (B, 1, H / 8, W / 8), high is real.

    Patches, because a VAE's errors are local: edges and textures. Spectral normalization
    (Miyato et al. 2018) bounds the score's gradient and stabilizes training.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        sizes = (3, width, 2 * width, 4 * width)
        self.convs = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1)) for a, b in pairwise(sizes)
        )
        self.score = spectral_norm(nn.Conv2d(sizes[-1], 1, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        x = images - 0.5
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
        return self.score(x).float()  # type: ignore[no-any-return]


def critic_loss(critic: Critic, real: Tensor, drawn: Tensor) -> Tensor:
    """Return the hinge loss: real patches above 1, drawn ones below -1."""
    return F.relu(1 - critic(real)).mean() + F.relu(1 + critic(drawn)).mean()


def deception_loss(critic: Critic, drawn: Tensor) -> Tensor:
    """Return the generator loss, which falls as drawn pictures score as real."""
    return -torch.mean(critic(drawn))
