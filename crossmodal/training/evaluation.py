"""How good a bundle is, by judges that are not the model.

Text to image: `judge` looks at the pictures. Image to text: the caption must be one that
names every fact of the scene; a fact that is left out is a mistake.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from crossmodal.datasets.base import Split
from crossmodal.datasets.scenes import Scenes
from crossmodal.datasets.scenes.draw import draw
from crossmodal.datasets.scenes.grammar import describe
from crossmodal.datasets.scenes.world import Scene
from crossmodal.jobs.params import BlobRef, Img2TxtParams, Txt2ImgParams
from crossmodal.models.bundle import Bundle
from crossmodal.pipelines.base import Described, Drawn, Pipeline, Request
from crossmodal.pipelines.img2txt import Img2TxtPipeline
from crossmodal.pipelines.txt2img import Txt2ImgPipeline
from crossmodal.text.tokens import tokenize
from crossmodal.training.judge import Verdict, judge
from crossmodal.vision.preprocess import fit_square

SEED = 987_654  # of scenes that no training has used
CHUNK = 16

Figures = dict[str, float]


@dataclass(frozen=True)
class Asked:
    """A scene, its complete caption, and a picture of it."""

    scene: Scene
    text: str
    image: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]"


def evaluate(bundle: Bundle, count: int, splits: Sequence[Split]) -> dict[str, Any]:
    """Fractions of facts right, on `count` fresh scenes of each split."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    drawing, captioning = Txt2ImgPipeline(bundle, device), Img2TxtPipeline(bundle, device)
    found: dict[str, Any] = {"scenes": count, "txt2img": {}, "img2txt": {}}
    for split in splits:
        asked = list(islice(_asked(split), count))
        found["txt2img"][split] = _judge_pictures(drawing, asked)
        found["img2txt"][split] = _judge_captions(captioning, asked)
    return found


def _asked(split: Split) -> Any:
    data = Scenes()
    for scene, rng in data.scenes(split, SEED):
        yield Asked(scene, describe(scene)[0], draw(scene, rng, data.side))


def _judge_pictures(pipeline: Txt2ImgPipeline, asked: list[Asked]) -> Figures:
    requests = [Request(Txt2ImgParams(prompt=a.text, seed=i)) for i, a in enumerate(asked)]
    outcomes = _run(pipeline, requests)
    verdicts = [
        judge(outcome.images[0], a.scene)
        for outcome, a in zip(outcomes, asked, strict=True)
        if isinstance(outcome, Drawn)
    ]
    return _summary(verdicts)


def _summary(verdicts: list[Verdict]) -> Figures:
    return {
        "objects": _mean([o for v in verdicts for o in v.objects]),
        "relations": _mean([r for v in verdicts for r in v.relations]),
        "backgrounds": _mean([v.background for v in verdicts]),
        "scene": _mean([v.scene for v in verdicts]),
    }


def _judge_captions(pipeline: Img2TxtPipeline, asked: list[Asked]) -> Figures:
    params = Img2TxtParams(image=BlobRef(key="evaluation"))
    requests = [Request(params, fit_square(a.image, pipeline.side)) for a in asked]
    texts = [
        outcome.captions[0].text if isinstance(outcome, Described) else ""
        for outcome in _run(pipeline, requests)
    ]
    whole = [tokenize(t) == tokenize(a.text) for t, a in zip(texts, asked, strict=True)]
    objects = [
        phrase in text
        for text, a in zip(texts, asked, strict=True)
        for phrase in (f"{t.size} {t.color} {t.shape}" for t in a.scene.things)
    ]
    return {"scene": _mean(whole), "objects": _mean(objects)}


def _run(pipeline: Pipeline, requests: list[Request]) -> list[Any]:
    return [
        outcome
        for start in range(0, len(requests), CHUNK)
        for outcome in pipeline.run(requests[start : start + CHUNK])
    ]


def _mean(values: Sequence[bool]) -> float:
    return round(float(np.mean(values)), 4) if values else 0.0
