"""The bundle that ships: that it does what people try first, and how well."""

from itertools import islice, pairwise

import numpy as np
import pytest

from crossmodal.datasets.scenes import Scenes
from crossmodal.datasets.scenes.facts import parse
from crossmodal.datasets.scenes.first import PROMPTS
from crossmodal.datasets.scenes.world import COLORS
from crossmodal.networks.bundle import DATA_FILES, open_bundle
from crossmodal.settings import SHIPPED_BUNDLE
from crossmodal.training.inference import Models
from crossmodal.training.judge import judge, see
from crossmodal.training.tallies import JudgedCaptions, asked_of

SEEDS = 24
SPLITS = ("seen", "pairs", "relations")
SAID = (0.97, 0.96, 0.94)  # of the objects of prompts, and those and the backgrounds of pictures
CAPTIONED = (0.97, 0.92, 0.93)
REFUSED = {"a red car on a road", "a smiley face"}
TOO_MANY = "four red circles"


@pytest.fixture(scope="module")
def models() -> Models:
    return Models.of(open_bundle(SHIPPED_BUNDLE))


def test_it_is_as_good_as_is_asked_for() -> None:
    quality = open_bundle(SHIPPED_BUNDLE).manifest.quality
    assert quality["count"] >= 2000
    drawn, captions = quality["txt2img"], quality["img2txt"]
    for split, said, captioned in zip(SPLITS, SAID, CAPTIONED, strict=True):
        assert drawn[split]["objects"] >= said
        assert min(captions[split]["objects"], captions[split]["backgrounds"]) >= captioned


def test_its_weights_are_few() -> None:
    assert sum((SHIPPED_BUNDLE / name).stat().st_size for name in DATA_FILES) < 48e6


def test_what_people_type_first_is_drawn(models: Models) -> None:
    drawn = models.draw(PROMPTS, first_seed=3)
    missing = {p for p, picture in zip(PROMPTS, drawn, strict=True) if picture is None}
    assert missing == REFUSED
    verdicts = [
        judge(picture, parse(prompt))
        for prompt, picture in zip(PROMPTS, drawn, strict=True)
        if picture is not None and prompt != TOO_MANY
    ]
    assert np.mean([fact for verdict in verdicts for fact in verdict.facts]) > 0.97


@pytest.mark.parametrize(
    ("prompt", "color", "background"),
    [
        ("a grey square", "gray", None),
        ("a dark blue square", "navy", None),
        ("a green star on a teal background", "green", "teal"),
        ("a cream circle", "beige", None),
        ("a black heart on a navy background", "black", "navy"),
        ("a circle on a lime background", None, "lime"),
    ],
)
def test_a_color_that_is_said_is_kept_under_every_seed(
    models: Models, prompt: str, color: str | None, background: str | None
) -> None:
    for picture in models.draw([prompt] * SEEDS, first_seed=0):
        assert picture is not None
        ground = np.median(picture[:4].reshape(-1, 3), axis=0)
        if background:
            assert named(ground) == background
        if color:
            apart = np.abs(picture.astype(int) - COLORS[color]).max(axis=2)
            assert (apart < 24).mean() > 0.006, prompt


def named(color: "np.typing.NDArray[np.float64]") -> str:
    return min(COLORS, key=lambda name: float(np.linalg.norm(color - np.array(COLORS[name]))))


def test_what_is_not_said_is_chosen_by_the_seed_and_stands_out(models: Models) -> None:
    found = [see(picture) for picture in models.draw(["a star"] * SEEDS, 0) if picture is not None]
    assert all(len(one.objects) == 1 for one in found)  # none is lost in its background
    assert len({one.objects[0].color for one in found}) > 5
    assert len({one.background for one in found}) > 3


@pytest.mark.parametrize("prompt", ["three huge squares in a row", "two big stars and a big ring"])
def test_things_touch_neither_each_other_nor_the_edge(models: Models, prompt: str) -> None:
    for picture in models.draw([prompt] * SEEDS, first_seed=0):
        assert picture is not None
        assert len(see(picture).objects) == 3
        border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert np.ptp(border.astype(int), axis=0).max() < 16


def test_captions_bear_rough_pictures_and_do_not_stammer(models: Models) -> None:
    captions = JudgedCaptions(models)
    for split in SPLITS:
        captions.add(list(islice(asked_of(Scenes(), split, 20), 20)))
    figures = captions.figures()
    assert min(figures["objects"], figures["backgrounds"]) > 0.92
    for words in (caption.split() for caption in captions.captions):
        assert not any(a == b for a, b in pairwise(words))
        things = [word for word in words if word in Scenes.things]
        assert all(things.count(word) < 3 for word in things)
