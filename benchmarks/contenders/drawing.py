"""What both servers run: the drawing model of this project, on one core for each process."""

from collections.abc import Sequence

import torch

from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.models.contract import Batch, Picture, Request
from crossmodal.models.drawing import BundleDrawing
from crossmodal.settings import load_settings
from crossmodal.vision.encode import encode_png


def load() -> BundleDrawing:
    """The shipped model, warm."""
    torch.set_num_threads(1)
    model = BundleDrawing()
    model.load(load_settings().bundle, "cpu")
    draw(model, [Txt2ImgParams.model_validate(model.example())])
    return model


def draw(model: BundleDrawing, jobs: Sequence[Txt2ImgParams]) -> list[bytes]:
    """PNG files."""
    torch.set_num_threads(1)  # of the thread that calls: a server may have one of its own
    made = model.run(Batch([Request(params, params.seed or 0) for params in jobs]))
    return [
        encode_png(one.pixels, params.prompt)
        for one, params in zip(made, jobs, strict=True)
        if isinstance(one, Picture)
    ]
