"""The models of a bundle at work in this process, as a worker would run them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from crossmodal.kinds.fields import MAX_PROMPT, BlobRef
from crossmodal.kinds.img2txt import Img2TxtParams
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.models.bundle import Bundle
from crossmodal.pipelines.base import Described, Drawn, Pipeline, Request
from crossmodal.pipelines.img2txt import Img2TxtPipeline
from crossmodal.pipelines.txt2img import Txt2ImgPipeline
from crossmodal.training.pictures import Picture
from crossmodal.vision.preprocess import fit_square

CHUNK = 16


@contextmanager
def single_threaded() -> Iterator[None]:
    """Few pictures at a time are small tensors, whose threads mostly wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Pipelines:
    """Both models of a bundle on the best device of this machine."""

    drawing: Txt2ImgPipeline
    captioning: Img2TxtPipeline

    @staticmethod
    def of(bundle: Bundle) -> "Pipelines":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return Pipelines(Txt2ImgPipeline(bundle, device), Img2TxtPipeline(bundle, device))

    def draw(self, prompts: Sequence[str], first_seed: int) -> list[Picture | None]:
        """One picture a prompt, cut to the longest allowed; None where no word is known."""
        requests = [
            Request(Txt2ImgParams(prompt=prompt[:MAX_PROMPT], seed=first_seed + i))
            for i, prompt in enumerate(prompts)
        ]
        return [o.images[0] if isinstance(o, Drawn) else None for o in _run(self.drawing, requests)]

    def caption(self, images: Sequence[Picture], beam_width: int = 4) -> list[str]:
        """The likeliest caption of each picture."""
        params = Img2TxtParams(image=BlobRef(key="evaluation"), beam_width=beam_width)
        side = self.captioning.side
        requests = [Request(params, fit_square(image, side)) for image in images]
        outcomes = _run(self.captioning, requests)
        return [o.captions[0].text if isinstance(o, Described) else "" for o in outcomes]


def _run(pipeline: Pipeline, requests: list[Request]) -> list[Any]:
    return [
        outcome
        for start in range(0, len(requests), CHUNK)
        for outcome in pipeline.run(requests[start : start + CHUNK])
    ]
