"""How good a bundle is, by judges that are not the model.

On `scenes`, prompts and captions are parsed into facts. A picture is right as far as the
judge finds its prompt's facts in it, a caption as far as it names those of its picture; a
fact that is left out is a mistake. On other data sets, captions are scored against people's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from crossmodal.datasets.base import Dataset, examples
from crossmodal.datasets.scenes import Scenes
from crossmodal.datasets.scenes.draw import draw
from crossmodal.datasets.scenes.facts import Verdict, compare, parse
from crossmodal.datasets.scenes.grammar import describe
from crossmodal.jobs.params import MAX_PROMPT, BlobRef, Img2TxtParams, Txt2ImgParams
from crossmodal.models.bundle import Bundle
from crossmodal.pipelines.base import Described, Drawn, Pipeline, Request
from crossmodal.pipelines.img2txt import Img2TxtPipeline
from crossmodal.pipelines.txt2img import Txt2ImgPipeline
from crossmodal.training.judge import HARMS, judge
from crossmodal.training.pictures import Picture
from crossmodal.training.scores import score
from crossmodal.training.sharpness import sharpness
from crossmodal.vision.preprocess import fit_square

SEED = 987_654  # of scenes that no training has used
CHUNK = 16
JUDGED = 200  # true pictures that the judge itself is judged by
VISIBLE = 16  # levels by which a pixel differs for an eye to see it
DIFFERENT = 0.005  # of the pixels, in which pictures of two seeds differ at the least

Figures = dict[str, float]


@dataclass(frozen=True)
class Asked:
    """A scene's picture, a prompt for it in any wording, and all there is to say of it."""

    prompt: str
    complete: str
    image: Picture


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


def evaluate(bundle: Bundle, data: Dataset, count: int, splits: Sequence[str]) -> dict[str, Any]:
    """The figures of each split, by task; fractions from 0 to 1 but for `sharpness` and `cider`."""
    pipelines = Pipelines.of(bundle)
    sizes = [size for split in splits if (size := data.size(split)) is not None]
    count = min(count, max(sizes)) if sizes else count
    found: dict[str, Any] = {"dataset": data.name, "count": count, "txt2img": {}, "img2txt": {}}
    if isinstance(data, Scenes):
        found |= {"round_trip": {}, "judge": judge_of_judges(data, min(count, JUDGED))}
    for split in splits:
        if isinstance(data, Scenes):
            asked = asked_of(data, split, count)
            drawn = judge_pictures(pipelines, asked)
            found["txt2img"][split], found["round_trip"][split] = drawn
            found["img2txt"][split] = judge_captions(pipelines, asked)
        else:
            _score_examples(pipelines, data, split, count, found)
    return found


def asked_of(data: Scenes, split: str, count: int) -> list[Asked]:
    """The first `count` scenes of `split` that are kept for judging."""
    return [
        Asked(describe(scene, rng)[0], describe(scene)[0], draw(scene, rng, data.side))
        for scene, rng in islice(data.scenes(split, SEED), count)
    ]


def judge_pictures(pipelines: Pipelines, asked: list[Asked]) -> tuple[Figures, Figures]:
    """What the pictures show of their prompts; what is left of it when they are captioned."""
    prompts, claims = [a.prompt for a in asked], [parse(a.prompt) for a in asked]
    drawn = _with_blanks(pipelines.draw(prompts, first_seed=0))
    again = _with_blanks(pipelines.draw(prompts, first_seed=len(asked)))
    verdicts = [judge(image, claim) for image, claim in zip(drawn, claims, strict=True)]
    figures = _fractions(verdicts) | {
        "sharpness": round(sharpness(drawn, [a.image for a in asked]), 4),
        "diversity": _mean([_differ(a, b) for a, b in zip(drawn, again, strict=True)]),
    }
    told = [parse(caption) for caption in pipelines.caption(drawn)]
    kept = [compare(claim, t) for claim, t in zip(claims, told, strict=True)]
    return figures, {
        "facts": _mean([fact for v in kept for fact in v.facts]),
        "scene": _mean([v.scene for v in kept]),
    }


def _with_blanks(pictures: list[Picture | None]) -> list[Picture]:
    """A prompt of which no word is known counts as a picture of nothing, as large as the others."""
    shape = next((p.shape for p in pictures if p is not None), (128, 128, 3))
    return [np.zeros(shape, np.uint8) if p is None else p for p in pictures]


def _differ(a: Picture, b: Picture) -> bool:
    apart = np.abs(a.astype(np.int16) - b).max(axis=2) > VISIBLE
    return float(apart.mean()) >= DIFFERENT


def _fractions(verdicts: Sequence[Verdict]) -> Figures:
    return {
        "objects": _mean([o for v in verdicts for o in v.objects]),
        "relations": _mean([r for v in verdicts for r in v.relations]),
        "places": _mean([v.place for v in verdicts if v.place is not None]),
        "backgrounds": _mean([v.background for v in verdicts if v.background is not None]),
        "counts": _mean([v.count for v in verdicts]),
        "scene": _mean([v.scene for v in verdicts]),
    }


def judge_captions(pipelines: Pipelines, asked: list[Asked], beam_width: int = 4) -> Figures:
    """What captions of true pictures say of all there is to say."""
    captions = pipelines.caption([a.image for a in asked], beam_width)
    pairs = [(parse(a.complete), parse(c)) for a, c in zip(asked, captions, strict=True)]
    verdicts = [compare(truth, told) for truth, told in pairs]
    # What a caption adds must be true as well.
    whole = [v.scene and compare(told, truth).scene
             for v, (truth, told) in zip(verdicts, pairs, strict=True)]  # fmt: skip
    figures = _fractions(verdicts) | {"scene": _mean(whole)}
    return figures | score(captions, [[a.complete] for a in asked])


def judge_of_judges(data: Scenes, count: int = JUDGED) -> Figures:
    """Fraction of facts that the judge finds in true pictures: clean, blurred (a deviation of
    1 pixel), noisy (12 levels), and as JPEG of quality 50."""
    asked = asked_of(data, "seen", count)
    return {
        name: _mean([f for a in asked for f in judge(harm(a.image), parse(a.complete)).facts])
        for name, harm in HARMS.items()
    }


def _score_examples(
    pipelines: Pipelines, data: Dataset, split: str, count: int, found: dict[str, Any]
) -> None:
    """BLEU and CIDEr of captions, and how sharp pictures of the same captions are."""
    captions: list[str] = []
    references: list[list[str]] = []
    pairs: list[tuple[Picture, Picture]] = []
    stream = islice(examples(data, split, SEED), count)
    while shown := list(islice(stream, CHUNK)):  # photographs are large: never many at once
        captions += pipelines.caption([e.image for e in shown])
        references += [[c.text for c in e.captions] for e in shown]
        drawn = pipelines.draw([e.captions[0].text for e in shown], first_seed=len(captions))
        pairs += [
            (d, fit_square(e.image, d.shape[0]))
            for d, e in zip(drawn, shown, strict=True)
            if d is not None
        ]
    if captions:
        found["img2txt"][split] = score(captions, references)
        sharp = sharpness([d for d, _ in pairs], [t for _, t in pairs])
        found["txt2img"][split] = {"sharpness": round(sharp, 4)}


def _run(pipeline: Pipeline, requests: list[Request]) -> list[Any]:
    return [
        outcome
        for start in range(0, len(requests), CHUNK)
        for outcome in pipeline.run(requests[start : start + CHUNK])
    ]


def _mean(values: Sequence[bool]) -> float:
    return round(float(np.mean(values)), 4) if values else 0.0
