"""How sharp pictures are, and the gain on mask edges that makes drawn ones as sharp as real."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from crossmodal.datasets.base import TRAIN, Dataset, examples
from crossmodal.networks.scene_vae import SceneVAE
from crossmodal.text.vectors import TextVectors
from crossmodal.training.objectives import vectors_of
from crossmodal.vision.preprocess import fit_square

GAINS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0)
SAMPLE = 48  # pictures to find the gain by
FLAT = 1.0  # edges weaker than this are noise: such a picture has no sharpness to compare


def edge_strength(image: NDArray[np.uint8]) -> float:
    """The 99th percentile of the gradient's magnitude (Sobel) of RGB (H, W, 3), in gray levels.

    Not its mean: that would reward ripples.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    across, down = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
    return float(np.percentile(np.hypot(across, down), 99))


def sharpness(drawn: Sequence[NDArray[np.uint8]], real: Sequence[NDArray[np.uint8]]) -> float:
    """The median ratio of edge strengths, drawn over real, of pictures of the same things.

    Real ones are brought to the size of the drawn ones first.
    """
    pairs = [
        (edge_strength(d), edge_strength(fit_square(r, d.shape[0])))
        for d, r in zip(drawn, real, strict=True)
    ]
    ratios = [d / r for d, r in pairs if r >= FLAT]
    return float(np.median(ratios)) if ratios else 0.0


@torch.inference_mode()
def best_edge_gain(model: SceneVAE, source: TextVectors, data: Dataset, seed: int) -> float:
    """Of `GAINS`, the one whose pictures of complete captions are nearest to a sharpness of 1."""
    stream = examples(data, TRAIN, seed)
    chosen = [next(stream) for _ in range(SAMPLE)]
    device = next(model.parameters()).device
    words, keep = vectors_of(
        [e.captions[0].text for e in chosen], source, model.config.text.max_words
    )
    plan = model.planner(words.to(device), keep.to(device))
    shade = torch.zeros(len(chosen), model.config.shade_dim, device=device)

    def off(gain: float) -> float:
        drawn = model.render(plan, plan.mean, shade, model.config.side, gain)
        pixels = (drawn.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        return abs(sharpness(list(pixels), [e.image for e in chosen]) - 1)

    return min(GAINS, key=off)
