"""Measure sharpness, and find the mask edge gain at which drawn pictures match real ones."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossmodal.datasets.base import Dataset
from crossmodal.networks.scene_vae import Choices, SceneVAE
from crossmodal.training.batches import Source
from crossmodal.vision.preprocess import fit_square

GAINS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0)
SAMPLE = 48  # pictures used to find the gain
FLAT = 1.0  # weaker edges are noise: such a picture is not compared


def edge_strength(image: NDArray[np.uint8]) -> float:
    """Return the 99th percentile of the Sobel gradient of RGB (H, W, 3), in gray levels.

    Not the mean, which would reward ripples.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    across, down = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
    return float(np.percentile(np.hypot(across, down), 99))


def sharpness(drawn: Sequence[NDArray[np.uint8]], real: Sequence[NDArray[np.uint8]]) -> float:
    """Return the median ratio of edge strengths, drawn over real, of pairs of the same content.

    Real pictures are resized to the drawn ones first.
    """
    pairs = [
        (edge_strength(d), edge_strength(fit_square(r, d.shape[0])))
        for d, r in zip(drawn, real, strict=True)
    ]
    ratios = [d / r for d, r in pairs if r >= FLAT]
    return float(np.median(ratios)) if ratios else 0.0


@torch.inference_mode()
def best_edge_gain(model: SceneVAE, data: Dataset, seed: int) -> float:
    """Return the one of `GAINS` whose sharpness on known scenes is closest to 1."""
    device = next(model.parameters()).device
    real = Source(data, model.config.side, SAMPLE, seed).batch(0).to(device)
    made = Choices(real.present == 1, real.shapes, real.colors, real.ground)
    shade = torch.zeros(SAMPLE, model.config.shade_dim, device=device)

    def off(gain: float) -> float:
        drawn = model.render(made, real.boxes.flatten(1), shade, model.config.side, gain)
        return abs(sharpness(_pictures(drawn), _pictures(real.pictures())) - 1)

    return min(GAINS, key=off)


def _pictures(images: Tensor) -> list[NDArray[np.uint8]]:
    """Convert images (B, 3, H, W) in [0, 1] to uint8 (H, W, 3) each."""
    return list((images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy())
