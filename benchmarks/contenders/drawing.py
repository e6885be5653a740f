"""What both servers run: the pipeline of this project, on one core for each process."""

from collections.abc import Sequence

import torch

from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.models.bundle import open_bundle
from crossmodal.pipelines.base import Drawn, Request
from crossmodal.pipelines.txt2img import Txt2ImgPipeline
from crossmodal.settings import load_settings
from crossmodal.vision.encode import encode_png


def load() -> Txt2ImgPipeline:
    """The shipped model, warm."""
    torch.set_num_threads(1)
    pipeline = Txt2ImgPipeline(open_bundle(load_settings().bundle), torch.device("cpu"))
    pipeline.warmup()
    return pipeline


def draw(pipeline: Txt2ImgPipeline, jobs: Sequence[Txt2ImgParams]) -> list[bytes]:
    """PNG files."""
    torch.set_num_threads(1)  # of the thread that calls: a server may have one of its own
    made = pipeline.run([Request(params) for params in jobs])
    return [
        encode_png(one.images[0], params.prompt)
        for one, params in zip(made, jobs, strict=True)
        if isinstance(one, Drawn)
    ]
