"""Pictures to captions."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossmodal.jobs.record import GeneratedCaption
from crossmodal.kinds.img2txt import Img2TxtParams
from crossmodal.models.beam import Hypothesis, Limits, search
from crossmodal.models.bundle import Bundle
from crossmodal.models.captioner import Captioner
from crossmodal.models.weights import load_captioner
from crossmodal.pipelines.base import Described, Outcome, Pause, Request, no_pause


class Img2TxtPipeline:
    """Beam search with the captioner; a batch may ask for searches of different widths."""

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        self._model: Captioner = load_captioner(bundle, device)
        self._model.encoder.fuse()
        self._device = device

    @property
    def side(self) -> int:
        """Height and width of the pictures that `run` takes."""
        return self._model.config.side

    def warmup(self) -> None:
        blank = np.zeros((self.side, self.side, 3), np.uint8)
        params = Img2TxtParams.model_validate({"image": {"key": "warmup"}})
        self.run([Request(params, blank)])

    def weight(self, request: Request) -> int:
        return 1

    def run(self, batch: Sequence[Request], pause: Pause = no_pause) -> list[Outcome]:
        limits = [_limits(_params(request)) for request in batch]
        images = np.stack([_image(request) for request in batch])  # (B, H, W, 3)
        found = search(self._model, self._on_device(images), limits, pause)
        return [Described(tuple(self._caption(h) for h in hypotheses)) for hypotheses in found]

    def _on_device(self, images: NDArray[np.uint8]) -> Tensor:
        """uint8 (B, 3, H, W), with the channels last in memory, as convolutions like it."""
        tensor = torch.from_numpy(images)
        if self._device.type == "cuda":  # from pinned memory, the copy leaves this thread free
            tensor = tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.permute(0, 3, 1, 2)

    def _caption(self, hypothesis: Hypothesis) -> GeneratedCaption:
        words = (self._model.config.words[i] for i in hypothesis.words)
        return GeneratedCaption(
            text=" ".join(words), log_probability=round(hypothesis.log_probability, 4)
        )


def _params(request: Request) -> Img2TxtParams:
    if not isinstance(request.params, Img2TxtParams):
        raise TypeError(f"img2txt was given {type(request.params).__name__}")
    return request.params


def _limits(params: Img2TxtParams) -> Limits:
    return Limits(max(params.beam_width, params.count), params.max_words, params.count)


def _image(request: Request) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    if request.image is None:
        raise TypeError("img2txt was given no image")
    return request.image
