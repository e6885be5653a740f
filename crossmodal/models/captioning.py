"""The img2txt model of a bundle."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossmodal.kinds.img2txt import Img2TxtParams
from crossmodal.models.contract import Batch, Caption, Model, Outcome
from crossmodal.networks.beam import Hypothesis, Limits, search
from crossmodal.networks.bundle import open_bundle
from crossmodal.networks.captioner import Captioner
from crossmodal.networks.weights import load_captioner
from crossmodal.text.tokens import joined


class BundleCaptioning(Model):
    """A captioner with beam search; the requests of a batch may have different beam widths."""

    kind = "img2txt"
    is_concurrent = True
    repeatable = "exact"

    def load(self, folder: Path, device: str) -> None:
        self._device = torch.device(device)
        self._model: Captioner = load_captioner(open_bundle(folder), self._device)
        self._model.encoder.fuse()
        self.side = self._model.config.side

    def run(self, batch: Batch) -> list[Outcome]:
        limits = [_limits(request.params) for request in batch]
        images = np.stack([np.asarray(request.image) for request in batch])  # (B, H, W, 3)
        found = search(self._model, self._on_device(images), limits, batch.step)
        return [[self._caption(h) for h in hypotheses] for hypotheses in found]

    def _on_device(self, images: NDArray[np.uint8]) -> Tensor:
        """Copy to the device as uint8 (B, 3, H, W), channels last in memory: faster to convolve."""
        tensor = torch.from_numpy(images)
        if self._device.type == "cuda":  # a copy from pinned memory does not block this thread
            tensor = tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.permute(0, 3, 1, 2)

    def _caption(self, hypothesis: Hypothesis) -> Caption:
        words = [self._model.config.words[i] for i in hypothesis.words]
        return Caption(joined(words), round(hypothesis.log_probability, 4))


def _limits(params: Img2TxtParams) -> Limits:
    return Limits(max(params.beam_width, params.count), params.max_words, params.count)
