"""The drawing model of a bundle of ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossmodal.errors import UnknownWords
from crossmodal.models.contract import Batch, Model, Outcome, Picture, Request
from crossmodal.networks.bundle import open_bundle
from crossmodal.networks.drawing import DrawingModel
from crossmodal.networks.weights import load_drawing, load_text
from crossmodal.text.vectors import Encoded, TextVectors, nearest

# Floating-point sums depend on the shapes of the tensors they run in. Every forward pass
# therefore has one shape per device, so that a picture's bytes do not depend on its batch
# mates. On a CPU one row costs as much alone as in company, so the shape is one row.
ROWS = {"cpu": 1, "cuda": 16}


class BundleDrawing(Model):
    """Text vectors, then the model; the seed of a picture alone decides its noise."""

    kind = "txt2img"
    is_concurrent = True
    repeatable = "exact"

    def load(self, folder: Path, device: str) -> None:
        bundle = open_bundle(folder)
        self._device = torch.device(device)
        self._model: DrawingModel = load_drawing(bundle, self._device)
        self._words: TextVectors = load_text(bundle, self._model.config.text.source)
        self._rows = ROWS[self._device.type]

    def example(self) -> Mapping[str, Any]:
        return {"prompt": self._words.words[0], "seed": 0, "count": 2}

    def run(self, batch: Batch) -> list[Outcome]:
        """Draw every picture; a prompt without a known word fails alone."""
        texts = [self._words.encode(r.params.prompt, self._max_words) for r in batch]
        asked = [
            (text, self._noise(request))
            for request, text in zip(batch, texts, strict=True)
            if len(text.vectors)
        ]
        pictures = iter(self._draw(asked, batch))
        return [
            Picture(next(pictures), text.unknown, self._suggestions(text))
            if len(text.vectors)
            else _not_understood(request.params.prompt, text, self._suggestions(text))
            for request, text in zip(batch, texts, strict=True)
        ]

    def _suggestions(self, text: Encoded) -> dict[str, str]:
        known = self._words.words if text.unknown else []
        return {word: near for word in text.unknown if (near := nearest(word, known))}

    @property
    def _max_words(self) -> int:
        return self._model.config.text.max_words

    def _noise(self, request: Request) -> Tensor:
        """Standard-normal noise (latent_dim,), made on the CPU: the same on every device."""
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
        """Words (rows, T, D), their mask (rows, T), noise (rows, Z).

        T is fixed as well, but where a prompt is never with others, it is its own length.
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


def _not_understood(prompt: str, text: Encoded, suggestions: dict[str, str]) -> UnknownWords:
    words = ", ".join(
        f"{word} (nearest: {suggestions[word]})" if word in suggestions else word
        for word in text.unknown
    )
    words = words or "no words at all"
    return UnknownWords(
        f"no word of the prompt {prompt[:80]!r} is known to the model: {words}. "
        "Use words of the data it was trained on"
    )
