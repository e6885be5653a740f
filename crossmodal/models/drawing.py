"""The txt2img model of a bundle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossmodal.models.contract import Batch, Model, Outcome, Picture, Request
from crossmodal.models.understanding import Understanding, Understood
from crossmodal.networks.bundle import open_bundle
from crossmodal.networks.drawing import DrawingModel
from crossmodal.networks.weights import load_drawing, load_text
from crossmodal.text.vectors import Encoded, TextVectors

# Floating-point sums depend on tensor shapes. Every forward pass therefore has one shape per
# device, so that a picture's bytes do not depend on the rest of its batch. On a CPU a row costs
# as much alone as in a batch, so the shape is one row.
ROWS = {"cpu": 1, "cuda": 16}


class BundleDrawing(Model):
    """Text vectors and a drawing model; a picture's noise depends on its seed alone."""

    kind = "txt2img"
    is_concurrent = True
    repeatable = "exact"

    def load(self, folder: Path, device: str) -> None:
        bundle = open_bundle(folder)
        self._device = torch.device(device)
        self._model: DrawingModel = load_drawing(bundle, self._device)
        config = self._model.config
        self._words: TextVectors = load_text(bundle, config.text.source)
        self._understanding = Understanding(self._words, config.things, config.text.max_words)
        self.vocabulary = self._understanding.vocabulary
        self._rows = ROWS[self._device.type]

    def example(self) -> Mapping[str, Any]:
        return {"prompt": self._understanding.example, "seed": 0, "count": 2}

    def run(self, batch: Batch) -> list[Outcome]:
        """Draw every picture; a prompt without a known object fails only its own request."""
        read = [self._understanding.read(request.params.prompt) for request in batch]
        asked = [
            (one.text, self._noise(request))
            for request, one in zip(batch, read, strict=True)
            if isinstance(one, Understood)
        ]
        pictures = iter(self._draw(asked, batch))
        return [
            _picture(next(pictures), one) if isinstance(one, Understood) else one for one in read
        ]

    @property
    def _max_words(self) -> int:
        return self._model.config.text.max_words

    def _noise(self, request: Request) -> Tensor:
        """Return normal noise (latent_dim,) times temperature, made on the CPU for every device."""
        generator = torch.Generator().manual_seed(request.seed)
        noise = torch.randn(self._model.latent_dim, generator=generator)
        return noise * float(request.params.temperature)

    @torch.inference_mode()
    def _draw(self, asked: list[tuple[Encoded, Tensor]], batch: Batch) -> list[NDArray[np.uint8]]:
        pictures: list[NDArray[np.uint8]] = []
        for start in range(0, len(asked), self._rows):
            batch.step(start, len(asked))
            chunk = asked[start : start + self._rows]
            words, keep, noise = self._stacked(chunk)
            drawn = self._model.sample(words, keep, noise)  # (rows, 3, H, W)
            pixels = (drawn.clamp(0, 1) * 255).round().to(torch.uint8)
            pictures.extend(pixels.permute(0, 2, 3, 1).cpu().numpy()[: len(chunk)])
        return pictures

    def _stacked(self, chunk: list[tuple[Encoded, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        """Return words (rows, T, D), their mask (rows, T) and noise (rows, Z) on the device.

        T is fixed, too, except with one row: there it is the prompt's length.
        """
        length = len(chunk[0][0].vectors) if self._rows == 1 else self._max_words
        words = torch.zeros(self._rows, length, self._words.dim)
        keep = torch.zeros(self._rows, length, dtype=torch.bool)
        noise = torch.zeros(self._rows, self._model.latent_dim)
        for row, (text, latent) in enumerate(chunk):
            words[row, : len(text.vectors)] = torch.from_numpy(text.vectors)
            keep[row, : len(text.vectors)] = True
            noise[row] = latent
        return words.to(self._device), keep.to(self._device), noise.to(self._device)


def _picture(pixels: NDArray[np.uint8], prompt: Understood) -> Picture:
    warnings = (prompt.text.cut,) if prompt.text.cut else ()
    return Picture(pixels, prompt.text.unknown, prompt.suggestions, warnings)
