"""The judges: that they agree with the truth, say no, and are not put off by a bad picture."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from crossmodal.datasets.scenes import Scenes
from crossmodal.datasets.scenes.draw import draw
from crossmodal.datasets.scenes.facts import Said, parse
from crossmodal.datasets.scenes.grammar import describe
from crossmodal.datasets.scenes.world import COLORS, SHAPES
from crossmodal.training.evaluation import judge_of_judges
from crossmodal.training.judge import HARMS, judge
from crossmodal.training.scores import score
from crossmodal.training.sharpness import sharpness
from tests.at_once import at_once

Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def truth() -> list[tuple[Picture, str]]:
    return [
        (draw(scene, rng, 128), describe(scene)[0])
        for scene, rng in islice(Scenes().scenes("seen", 3), 150)
    ]


def test_the_judge_agrees_with_the_truth(truth: list[tuple[Picture, str]]) -> None:
    facts = [f for image, text in truth for f in judge(image, parse(text)).facts]
    assert np.mean(facts) >= 0.99


def test_the_judge_sees_through_blur_noise_and_jpeg() -> None:
    found = judge_of_judges(Scenes(), 60)
    assert set(found) == set(HARMS)
    assert min(found.values()) >= 0.97


def others(said: Said) -> list[Said]:
    shape = SHAPES[(SHAPES.index(str(said.shape)) + 1) % len(SHAPES)]
    return [
        replace(said, shape=shape),
        replace(said, color=next(c for c in COLORS if c != said.color)),
        replace(said, size="big" if said.size == "small" else "small"),
    ]


def test_the_judge_rejects_one_wrong_fact(truth: list[tuple[Picture, str]]) -> None:
    for image, text in truth[:40]:
        claims = parse(text)
        for wrong in others(claims.objects[0]):
            told = replace(claims, objects=(wrong, *claims.objects[1:]))
            assert not judge(image, told).scene
        ground = "navy" if claims.background != "navy" else "white"
        assert judge(image, replace(claims, background=ground)).background is False
        assert not judge(image, replace(claims, objects=claims.objects * 2)).count
        elsewhere = replace(claims, place="top" if claims.place != "top" else "left")
        assert not judge(image, elsewhere).place


def test_the_judge_rejects_relations_the_other_way_round(truth: list[tuple[Picture, str]]) -> None:
    told = [(image, parse(text)) for image, text in truth]
    pairs = [(i, c) for i, c in told if len(c.relations) == 1 and len({*c.objects}) == 2]
    assert pairs
    for image, claims in pairs:
        a, how, b = claims.relations[0]
        assert judge(image, claims).relations == (True,)
        assert judge(image, replace(claims, relations=((b, how, a),))).relations == (False,)


def test_a_blank_picture_shows_nothing() -> None:
    blank = np.full((128, 128, 3), 248, np.uint8)
    verdict = judge(blank, parse("a red circle on a white background"))
    assert (verdict.objects, verdict.count, verdict.background) == ((False,), False, True)


@at_once(
    "harm, low, high", [(lambda i: i, 1, 1), (lambda i: cv2.GaussianBlur(i, (0, 0), 1.5), 0, 0.7)]
)
def test_sharpness_tells_blurred_from_sharp(
    truth: list[tuple[Picture, str]], harm: Callable[[Picture], Picture], low: float, high: float
) -> None:
    real = [image for image, _ in truth[:30]]
    assert low <= sharpness([harm(image) for image in real], real) <= high


def test_captions_are_scored_as_the_challenge_does() -> None:
    references = [["a red circle", "one red disc"], ["a big blue star on white"]]
    exact = score(["a red circle", "a big blue star on white"], references)
    assert exact["bleu4"] == 1
    worse = score(["a red circle", "a star"], references)
    assert worse["bleu1"] < 1
    assert worse["cider"] < exact["cider"]
    assert score(["", ""], references)["bleu1"] == 0
