"""The text-to-image models by their kind, and what a pipeline asks of any of them."""

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
    """Draws from its prior: the text fixes some, standard-normal noise the rest."""

    @property
    def config(self) -> DrawingConfig: ...

    @property
    def latent_dim(self) -> int: ...

    def sample(self, words: Tensor, keep: Tensor, noise: Tensor) -> Tensor:
        """Words (B, T, D), their mask (B, T), noise (B, latent_dim) -> (B, 3, side, side)."""
        ...


def build(config: DrawingConfig) -> SceneVAE | PictureVAE:
    """The model that `config` describes, with fresh weights."""
    return SceneVAE(config) if isinstance(config, SceneVAEConfig) else PictureVAE(config)


def fit_whitening(model: nn.Module, vectors: Tensor) -> None:
    """Let the model's text encoder decorrelate a vocabulary's vectors, (V, D), V at least 2."""
    for module in model.modules():
        if isinstance(module, Whitening):
            with torch.no_grad():
                module.fit(vectors)
