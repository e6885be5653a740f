"""Prompts to pictures."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossmodal.errors import UnknownWords
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.models.bundle import Bundle
from crossmodal.models.drawing import DrawingModel
from crossmodal.models.weights import load_drawing, load_text
from crossmodal.pipelines.base import Drawn, Outcome, Pause, Request, no_pause
from crossmodal.text.vectors import Encoded, TextVectors, nearest

# Floating-point sums depend on the shapes of the tensors they run in. Every forward pass
# therefore has one shape per device, so that a picture's bytes do not depend on its batch
# mates. On a CPU one row costs as much alone as in company, so the shape is one row.
ROWS = {"cpu": 1, "cuda": 16}
MAX_SEED = 2**32


class Txt2ImgPipeline:
    """Text vectors, then the model; the seed of a picture alone decides its noise."""

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        self._model: DrawingModel = load_drawing(bundle, device)
        self._words: TextVectors = load_text(bundle, self._model.config.text.source)
        self._device = device
        self._rows = ROWS[device.type]

    def warmup(self) -> None:
        word = self._words.words[0]
        self.run([Request(Txt2ImgParams(prompt=word, seed=0, count=2))])

    def weight(self, request: Request) -> int:
        return request.params.count

    def run(self, batch: Sequence[Request], pause: Pause = no_pause) -> list[Outcome]:
        """Draw every picture of every request; a prompt without a known word fails alone."""
        params = [_params(request) for request in batch]
        texts = [self._words.encode(p.prompt, self._max_words) for p in params]
        jobs = [
            (text, self._noise(p, i))
            for p, text in zip(params, texts, strict=True)
            if len(text.vectors)
            for i in range(p.count)
        ]
        pictures = iter(self._draw(jobs, pause))
        return [
            Drawn(
                np.stack([next(pictures) for _ in range(p.count)]),
                text.unknown,
                self._suggestions(text),
            )
            if len(text.vectors)
            else _not_understood(p, text, self._suggestions(text))
            for p, text in zip(params, texts, strict=True)
        ]

    def _suggestions(self, text: Encoded) -> dict[str, str]:
        known = self._words.words if text.unknown else []
        return {word: near for word in text.unknown if (near := nearest(word, known))}

    @property
    def _max_words(self) -> int:
        return self._model.config.text.max_words

    def _noise(self, params: Txt2ImgParams, index: int) -> Tensor:
        """Standard-normal noise (latent_dim,), made on the CPU: the same on every device."""
        seed = ((params.seed or 0) + index) % MAX_SEED
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(self._model.latent_dim, generator=generator) * params.temperature

    @torch.inference_mode()
    def _draw(self, jobs: list[tuple[Encoded, Tensor]], pause: Pause) -> list[NDArray[np.uint8]]:
        pictures: list[NDArray[np.uint8]] = []
        for start in range(0, len(jobs), self._rows):
            pause()
            chunk = jobs[start : start + self._rows]
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


def _params(request: Request) -> Txt2ImgParams:
    if not isinstance(request.params, Txt2ImgParams):
        raise TypeError(f"txt2img was given {type(request.params).__name__}")
    return request.params


def _not_understood(
    params: Txt2ImgParams, text: Encoded, suggestions: dict[str, str]
) -> UnknownWords:
    words = ", ".join(
        f"{word} (nearest: {suggestions[word]})" if word in suggestions else word
        for word in text.unknown
    )
    words = words or "no words at all"
    return UnknownWords(
        f"no word of the prompt {params.prompt[:80]!r} is known to the model: {words}. "
        "Use words of the data it was trained on"
    )
