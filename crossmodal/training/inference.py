"""Run the models of a bundle in this process, with the code that workers use."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from crossmodal.kinds.fields import MAX_PROMPT, BlobRef
from crossmodal.kinds.img2txt import Img2TxtParams
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.models import contract
from crossmodal.models.captioning import BundleCaptioning
from crossmodal.models.contract import Batch, Model, Request
from crossmodal.models.drawing import BundleDrawing
from crossmodal.networks.bundle import Bundle
from crossmodal.training.pictures import Picture
from crossmodal.vision.preprocess import fit_square

CHUNK = 16


@contextmanager
def single_threaded() -> Iterator[None]:
    """Limit torch to one thread: on small batches, more threads mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Models:
    """Both models of a bundle, on the GPU if there is one."""

    drawing: BundleDrawing
    captioning: BundleCaptioning

    @staticmethod
    def of(bundle: Bundle) -> "Models":
        models = Models(BundleDrawing(), BundleCaptioning())
        device = "cuda" if torch.cuda.is_available() else "cpu"
        models.drawing.load(bundle.folder, device)
        models.captioning.load(bundle.folder, device)
        return models

    def draw(self, prompts: Sequence[str], first_seed: int) -> list[Picture | None]:
        """Draw one picture per prompt, truncated to `MAX_PROMPT`; None where no object is known."""
        requests = [
            Request(Txt2ImgParams(prompt=prompt[:MAX_PROMPT]), first_seed + i)
            for i, prompt in enumerate(prompts)
        ]
        return [
            o.pixels if isinstance(o, contract.Picture) else None
            for o in _run(self.drawing, requests)
        ]

    def caption(self, images: Sequence[Picture], beam_width: int = 4) -> list[str]:
        """Return the likeliest caption of each picture."""
        params = Img2TxtParams(image=BlobRef(key="evaluation"), beam_width=beam_width)
        side = self.captioning.side
        assert side is not None  # noqa: S101 - for mypy: the model is loaded
        requests = [Request(params, image=fit_square(image, side)) for image in images]
        outcomes = _run(self.captioning, requests)
        return [o[0].text if isinstance(o, list) and o else "" for o in outcomes]


def _run(model: Model, requests: list[Request]) -> list[Any]:
    return [
        outcome
        for start in range(0, len(requests), CHUNK)
        for outcome in model.run(Batch(requests[start : start + CHUNK]))
    ]
