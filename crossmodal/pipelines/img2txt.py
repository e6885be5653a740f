"""Pictures to captions."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch

from crossmodal.jobs.params import Img2TxtParams
from crossmodal.jobs.record import GeneratedCaption
from crossmodal.models.beam import Hypothesis, search
from crossmodal.models.bundle import Bundle
from crossmodal.models.captioner import Captioner
from crossmodal.models.weights import load_captioner
from crossmodal.pipelines.base import Described, Outcome, Request


class Img2TxtPipeline:
    """Beam search with the captioner; requests of the same search run together."""

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        self._model: Captioner = load_captioner(bundle, device)
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

    def run(self, batch: Sequence[Request]) -> list[Outcome]:
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, request in enumerate(batch):
            p = _params(request)
            alike[max(p.beam_width, p.count), p.max_words].append(i)
        outcomes: dict[int, Outcome] = {}
        for (width, max_words), rows in alike.items():
            found = self._search([batch[i] for i in rows], width, max_words)
            for i, hypotheses in zip(rows, found, strict=True):
                best = hypotheses[: _params(batch[i]).count]
                outcomes[i] = Described(tuple(self._caption(h) for h in best))
        return [outcomes[i] for i in range(len(batch))]

    def _search(
        self, requests: list[Request], width: int, max_words: int
    ) -> list[list[Hypothesis]]:
        images = np.stack([_image(request) for request in requests])  # (B, H, W, 3)
        tensor = torch.from_numpy(images).permute(0, 3, 1, 2).to(self._device)
        return search(self._model, tensor, width, max_words)

    def _caption(self, hypothesis: Hypothesis) -> GeneratedCaption:
        words = (self._model.config.words[i] for i in hypothesis.words)
        return GeneratedCaption(
            text=" ".join(words), log_probability=round(hypothesis.log_probability, 4)
        )


def _params(request: Request) -> Img2TxtParams:
    if not isinstance(request.params, Img2TxtParams):
        raise TypeError(f"img2txt was given {type(request.params).__name__}")
    return request.params


def _image(request: Request) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    if request.image is None:
        raise TypeError("img2txt was given no image")
    return request.image
