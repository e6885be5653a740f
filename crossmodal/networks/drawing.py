"""The text-to-image models by decoder (`scene`, `picture`), and their common interface."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from crossmodal.networks.picture_vae import PictureVAE, PictureVAEConfig
from crossmodal.networks.scene_vae import SceneVAE, SceneVAEConfig
from crossmodal.networks.text_encoder import Whitening

DrawingConfig = SceneVAEConfig | PictureVAEConfig
KINDS: dict[str, tuple[Any, Any]] = {
    "scene": (SceneVAEConfig, SceneVAE),
    "picture": (PictureVAEConfig, PictureVAE),
}


class DrawingModel(Protocol):
    """A text-to-image model that samples its text-conditioned prior by standard-normal noise."""

    @property
    def config(self) -> DrawingConfig: ...

    @property
    def latent_dim(self) -> int: ...

    def sample(self, words: Tensor, keep: Tensor, noise: Tensor) -> Tensor:
        """Map words (B, T, D), mask (B, T) and noise (B, latent_dim) to (B, 3, side, side)."""
        ...


def build(config: DrawingConfig) -> SceneVAE | PictureVAE:
    """Build the model that `config` describes, with fresh weights."""
    return SceneVAE(config) if isinstance(config, SceneVAEConfig) else PictureVAE(config)


def fit_whitening(model: nn.Module, vectors: Tensor) -> None:
    """Fit the text encoder's whitening to a vocabulary's vectors, (V, D), V at least 2."""
    for module in model.modules():
        if isinstance(module, Whitening):
            with torch.no_grad():
                module.fit(vectors)
