"""Previews of a diffusers pipeline's latents, without decoding them.

A latent pixel times a matrix has nearly the color of the pixels that it encodes. These matrices are
in wide use: InvokeAI has them in `step_callback.py` (Apache-2.0), after an idea of keturn's
(https://discuss.huggingface.co/t/decoding-latents-to-rgb-without-upscaling/23204).
"""

from typing import Any

import torch

SD = (
    (0.3444, 0.1385, 0.0670),
    (0.1247, 0.4027, 0.1494),
    (-0.3192, 0.2513, 0.2103),
    (-0.1307, -0.1874, -0.7445),
)  # of 1.x, by torridgristle
SDXL = (
    (0.3816, 0.4930, 0.5320),
    (-0.3753, 0.1631, 0.1739),
    (0.1770, 0.3588, -0.2048),
    (-0.4350, -0.2644, -0.4289),
)  # by StAlKeR7779
FAMILIES = {  # by prefixes of pipelines' names
    "StableDiffusionXL": SDXL,
    "StableDiffusionPipeline": SD,
    "LatentConsistencyModel": SD,
}

Factors = tuple[tuple[float, ...], ...]


def factors_of(pipe: Any) -> Factors | None:
    """Return the matrix (channels, 3) of a pipeline's latents, or None if unknown."""
    name = type(pipe).__name__
    found = (factors for begin, factors in FAMILIES.items() if name.startswith(begin))
    return next(found, None)


def pictures_of(latents: torch.Tensor, factors: Factors) -> list[Any]:
    """Convert latents (B, channels, H, W) to pictures (H, W, 3) of floats from 0 to 1."""
    pixels = latents.movedim(1, -1).float()
    colors = pixels @ torch.tensor(factors, device=latents.device)
    return list(((colors + 1) / 2).clamp(0, 1).nan_to_num().cpu().numpy())
