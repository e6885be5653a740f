"""Tallies: judge the examples of a split in chunks, and compute its metrics."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np

from crossmodal.datasets.base import Example
from crossmodal.datasets.scenes import Scenes
from crossmodal.datasets.scenes.draw import ROUGH, draw
from crossmodal.datasets.scenes.facts import Verdict, compare, parse
from crossmodal.datasets.scenes.grammar import describe
from crossmodal.training.inference import Models
from crossmodal.training.judge import judge
from crossmodal.training.pictures import Picture
from crossmodal.training.scores import score
from crossmodal.training.sharpness import sharpness
from crossmodal.vision.preprocess import fit_square

SEED = 987_654  # of scenes that are not used in training
VISIBLE = 16  # min difference of a pixel, in levels, that is visible
DIFFERENT = 0.005  # min fraction of visibly different pixels between two seeds

Figures = dict[str, float]


@dataclass(frozen=True)
class Asked:
    """A scene to judge by: a prompt, its complete caption, its picture and a rough version."""

    prompt: str
    complete: str
    image: Picture
    rough: Picture


def asked_of(data: Scenes, split: str, count: int) -> Iterator[Asked]:
    """Yield the first `count` scenes of `split` that are reserved for judging."""
    for scene, rng in islice(data.scenes(split, SEED), count):
        prompt, image = describe(scene, rng)[0], draw(scene, rng, data.side)
        yield Asked(prompt, describe(scene)[0], image, draw(scene, rng, data.side, ROUGH))


class Tally(Protocol):
    """The examples of one split judged so far."""

    def add(self, count: int) -> int:
        """Judge up to `count` further examples; return the number judged."""
        ...

    def figures(self) -> dict[str, Figures]:
        """Return the metrics by task; a task without judged examples is missing."""
        ...


@dataclass
class SceneTally:
    """The tally of a split of scenes: drawn pictures and captions."""

    stream: Iterator[Asked]
    pictures: "JudgedPictures"
    captions: "JudgedCaptions"

    def add(self, count: int) -> int:
        asked = list(islice(self.stream, count))
        if asked:
            self.pictures.add(asked)
            self.captions.add(asked)
        return len(asked)

    def figures(self) -> dict[str, Figures]:
        return {
            "txt2img": self.pictures.figures(),
            "round_trip": self.pictures.round_trip(),
            "img2txt": self.captions.figures(),
        }


@dataclass
class JudgedPictures:
    """Drawn pictures, judged by their prompts directly and through their captions.

    Each prompt is drawn twice, with seeds `apart` from each other, at least the prompt count.
    """

    models: Models
    apart: int
    verdicts: list[Verdict] = field(default_factory=list)
    kept: list[Verdict] = field(default_factory=list)
    differing: list[bool] = field(default_factory=list)
    drawn: list[Picture] = field(default_factory=list)
    real: list[Picture] = field(default_factory=list)

    def add(self, asked: Sequence[Asked]) -> None:
        seed = len(self.verdicts)
        prompts, claims = [a.prompt for a in asked], [parse(a.prompt) for a in asked]
        drawn = _with_blanks(self.models.draw(prompts, first_seed=seed))
        again = _with_blanks(self.models.draw(prompts, first_seed=seed + self.apart))
        told = [parse(caption) for caption in self.models.caption(drawn)]
        self.verdicts += [judge(image, claim) for image, claim in zip(drawn, claims, strict=True)]
        self.kept += [compare(claim, t) for claim, t in zip(claims, told, strict=True)]
        self.differing += [_differ(a, b) for a, b in zip(drawn, again, strict=True)]
        self.drawn += drawn
        self.real += [a.image for a in asked]

    def figures(self) -> Figures:
        return _fractions(self.verdicts) | {
            "sharpness": round(sharpness(self.drawn, self.real), 4),
            "diversity": mean(self.differing),
        }

    def round_trip(self) -> Figures:
        return {
            "facts": mean([fact for v in self.kept for fact in v.facts]),
            "scene": mean([v.scene for v in self.kept]),
        }


def _with_blanks(pictures: list[Picture | None]) -> list[Picture]:
    """Replace None, of a prompt without a known object, by a black picture of the same size."""
    shape = next((p.shape for p in pictures if p is not None), (128, 128, 3))
    return [np.zeros(shape, np.uint8) if p is None else p for p in pictures]


def _differ(a: Picture, b: Picture) -> bool:
    apart = np.abs(a.astype(np.int16) - b).max(axis=2) > VISIBLE
    return float(apart.mean()) >= DIFFERENT


def _fractions(verdicts: Sequence[Verdict]) -> Figures:
    """Return the fraction kept of each kind of claimed fact, and of scenes with all facts kept."""
    facts = {
        "objects": [o for v in verdicts for o in v.objects],
        "relations": [r for v in verdicts for r in v.relations],
        "places": [v.place for v in verdicts if v.place is not None],
        "backgrounds": [v.background for v in verdicts if v.background is not None],
        "counts": [v.count for v in verdicts],
        "scene": [v.scene for v in verdicts],
    }
    return {name: mean(found) for name, found in facts.items() if found}


@dataclass
class JudgedCaptions:
    """Captions of rough pictures, judged by the complete captions."""

    models: Models
    beam_width: int = 4
    captions: list[str] = field(default_factory=list)
    complete: list[str] = field(default_factory=list)

    def add(self, asked: Sequence[Asked]) -> None:
        self.captions += self.models.caption([a.rough for a in asked], self.beam_width)
        self.complete += [a.complete for a in asked]

    def figures(self) -> Figures:
        both = zip(self.complete, self.captions, strict=True)
        pairs = [(parse(complete), parse(caption)) for complete, caption in both]
        verdicts = [compare(truth, told) for truth, told in pairs]
        # A caption must not add false facts either.
        whole = [
            v.scene and compare(told, truth).scene
            for v, (truth, told) in zip(verdicts, pairs, strict=True)
        ]
        figures = _fractions(verdicts) | {"scene": mean(whole)}
        return figures | score(self.captions, [[text] for text in self.complete])


@dataclass
class ExampleTally:
    """The tally of captioned pictures: BLEU and CIDEr of captions, sharpness of drawn pictures."""

    models: Models
    stream: Iterator[Example]
    captions: list[str] = field(default_factory=list)
    references: list[list[str]] = field(default_factory=list)
    drawn: list[Picture] = field(default_factory=list)
    real: list[Picture] = field(default_factory=list)

    def add(self, count: int) -> int:
        shown = list(islice(self.stream, count))  # photographs are large: few at once
        self.captions += self.models.caption([e.image for e in shown])
        self.references += [[c.text for c in e.captions] for e in shown]
        prompts = [e.captions[0].text for e in shown]
        drawn = self.models.draw(prompts, first_seed=len(self.captions))
        for picture, example in zip(drawn, shown, strict=True):
            if picture is not None:
                self.drawn.append(picture)
                self.real.append(fit_square(example.image, picture.shape[0]))
        return len(shown)

    def figures(self) -> dict[str, Figures]:
        if not self.captions:
            return {}
        return {
            "txt2img": {"sharpness": round(sharpness(self.drawn, self.real), 4)},
            "img2txt": score(self.captions, self.references),
        }


def mean(values: Sequence[bool]) -> float:
    """Return the fraction of true values; 0 if there are none."""
    return round(float(np.mean(values)), 4) if values else 0.0
