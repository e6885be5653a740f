"""The rendered data set, and the parser that reads its facts back from words."""

from itertools import combinations, islice

import numpy as np
import pytest

from crossmodal.datasets.base import examples
from crossmodal.datasets.scenes import Scenes
from crossmodal.datasets.scenes.facts import Claims, Said, Verdict, compare, parse
from crossmodal.datasets.scenes.grammar import describe
from crossmodal.datasets.scenes.world import (
    COLORS,
    SHAPES,
    SIZES,
    Rng,
    Scene,
    held_out,
    is_tellable,
    relation_between,
)
from crossmodal.text.tokens import tokenize
from tests.at_once import at_once


@pytest.fixture(scope="module")
def scenes() -> list[tuple[Scene, Rng]]:
    return list(islice(Scenes().scenes("seen", 3), 200))


def test_the_same_seed_gives_the_same_examples() -> None:
    a, b = (list(islice(examples(Scenes(), "train", 5), 20)) for _ in range(2))
    for x, y in zip(a, b, strict=True):
        assert (x.image == y.image).all()
        assert [c.text for c in x.captions] == [c.text for c in y.captions]


def test_an_example_does_not_depend_on_those_before_it() -> None:
    streamed = list(islice(examples(Scenes(), "train", 5), 8))[7]
    assert (Scenes().example("train", 5, 7).image == streamed.image).all()


@at_once(
    "split, reserved",
    [("train", None), ("seen", None), ("pairs", "pairs"), ("relations", "relations")],
)
def test_held_out_combinations_are_only_where_they_belong(split: str, reserved: str | None) -> None:
    assert {held_out(s) for s, _ in islice(Scenes().scenes(split, 0), 300)} == {reserved}


def test_everything_stands_out_and_inside(scenes: list[tuple[Scene, Rng]]) -> None:
    for scene, _ in scenes:
        for thing in scene.things:
            assert is_tellable(thing.color, scene.background)
            assert SIZES[thing.size][0] <= thing.radius <= SIZES[thing.size][1]
            assert thing.radius <= min(thing.x, thing.y)
            assert max(thing.x, thing.y) <= 1 - thing.radius


def truth(scene: Scene) -> Claims:
    """All there is to say of a scene, without a word."""
    things = scene.things
    relations = tuple(
        (i, relation_between(a, b), j) for (i, a), (j, b) in combinations(enumerate(things), 2)
    )
    objects = tuple(Said(t.shape, t.color, t.size) for t in things)
    return Claims(objects, relations, scene.place, scene.background)


def test_what_a_caption_is_of_is_in_the_order_it_is_named() -> None:
    for scene, rng in islice(Scenes().scenes("train", 1), 300):
        text, order = describe(scene, rng)
        for said, i in zip(parse(text).objects, order, strict=True):
            assert said.fits(truth(scene).objects[i]), text


def test_a_grounding_is_of_the_picture() -> None:
    for index in range(60):
        image, captions = (e := Scenes(64).example("train", 2, index)).image, e.captions
        for grounding in (c.grounding for c in captions):
            assert grounding is not None
            rows = zip(grounding.boxes, grounding.shapes, grounding.colors, strict=True)
            for (x, y, radius), shape, color in rows:
                if SHAPES[shape] != "ring":
                    seen = image[int(y * 64), int(x * 64)].astype(float)
                    assert np.abs(seen - list(COLORS.values())[color]).max() < 12
                assert SIZES["small"][0] <= radius <= SIZES["big"][1]
            ground = list(COLORS.values())[grounding.ground]
            assert np.abs(image[0, 0].astype(float) - ground).max() < 12


def test_the_complete_caption_leaves_nothing_out(scenes: list[tuple[Scene, Rng]]) -> None:
    for scene, _ in scenes:
        text = describe(scene)[0]
        claims, whole = parse(text), truth(scene)
        assert (claims.background, claims.place) == (whole.background, whole.place)
        assert sorted(map(repr, claims.objects)) == sorted(map(repr, whole.objects))
        assert compare(claims, whole).scene, text
        assert claims.relations or len(scene.things) == 1, text


@at_once("split", ["train", "pairs", "relations"])
def test_every_wording_of_a_scene_is_true_of_it(split: str) -> None:
    for scene, rng in islice(Scenes().scenes(split, 4), 400):
        text = describe(scene, rng)[0]
        verdict = compare(parse(text), truth(scene))
        assert verdict.scene, (text, verdict)


def test_every_word_for_a_thing_is_learned() -> None:
    said = {
        token for text in islice(Scenes().texts("train", 1), 20_000) for token in tokenize(text)
    }
    assert set(Scenes.things) <= said


def test_pictures_to_be_captioned_are_rough() -> None:
    plain, rough = (d.example("train", 1, 3) for d in (Scenes(64), Scenes(64).roughened()))
    assert plain.captions[0].text == rough.captions[0].text
    apart = np.abs(plain.image.astype(int) - rough.image).max(axis=2)
    assert 0 < np.median(apart) < 40


@at_once(
    "text, claims",
    [
        (
            "A tiny RED disc over a box, on white.",
            Claims(
                (Said("circle", "red", "small"), Said("square")), ((0, "above", 1),), None, "white"
            ),
        ),
        (
            "a star that is small and red in the upper left corner",
            Claims((Said("star", "red", "small"),), (), "top left"),
        ),
        (
            "box that is red and tiny pink diamond",
            Claims((Said("square", "red"), Said("diamond", "pink", "small"))),
        ),
        (
            "a box that is large and green, pink circle and a blue star in a row",
            Claims(
                (Said("square", "green", "big"), Said("circle", "pink"), Said("star", "blue")),
                ((0, "left of", 1), (1, "left of", 2)),
            ),
        ),
        (
            "a red plus left of a blue ring and under a heart",
            Claims(
                (Said("cross", "red"), Said("ring", "blue"), Said("heart")),
                ((0, "left of", 1), (0, "below", 2)),
            ),
        ),
        (
            "a red circle, a blue circle and a green circle in a column",
            Claims(
                (Said("circle", "red"), Said("circle", "blue"), Said("circle", "green")),
                ((0, "above", 1), (1, "above", 2)),
            ),
        ),
        (
            "two red circles side by side",
            Claims((Said("circle", "red"),) * 2, ((0, "left of", 1),)),
        ),
        ("stars", Claims((Said("star"),) * 3)),
        (
            "a pair of navy blue boxes that are small above a white shape on black",
            Claims(
                (*[Said("square", "navy", "small")] * 2, Said(None, "white")),
                ((0, "above", 2), (1, "above", 2)),
                None,
                "black",
            ),
        ),
        (
            "a light green oval between two hot pink hearts, from top to bottom",
            Claims(
                (Said("oval", "lime"), *[Said("heart", "magenta")] * 2),
                ((1, "above", 0), (0, "above", 2)),
            ),
        ),
        (
            "a red small circle on top of a gold ring against a dark blue background",
            Claims(
                (Said("circle", "red", "small"), Said("ring", "yellow")),
                ((0, "above", 1),),
                None,
                "navy",
            ),
        ),
        ("the cat sat on the mat", Claims()),
    ],
)
def test_facts_are_read_from_words(text: str, claims: Claims) -> None:
    assert parse(text) == claims


TRUTH = "a small red circle to the left of a big blue star on a white background"


@at_once(
    "caption, wrong",
    [
        (TRUTH, ()),
        ("a big blue star to the right of a small red circle on a white background", ()),
        (
            "a small red circle to the left of a big green star on a white background",
            ("objects", "relations"),
        ),
        (
            "a small blue circle to the left of a big red star on a white background",
            ("objects", "relations"),
        ),
        (
            "a red circle to the left of a big blue star on a white background",
            ("objects", "relations"),
        ),
        (
            "a small red circle to the right of a big blue star on a white background",
            ("relations",),
        ),
        ("a small red circle and a big blue star on a white background", ("relations",)),
        ("a small red circle to the left of a big blue star", ("background",)),
        (
            "a small red circle to the left of a big blue star and above a small pink heart on a "
            "white background",
            ("count",),
        ),
    ],
)
def test_a_caption_is_right_only_with_every_fact(caption: str, wrong: tuple[str, ...]) -> None:
    verdict = compare(parse(TRUTH), parse(caption))
    assert isinstance(verdict, Verdict)
    assert verdict.scene == (not wrong)
    for name in ("objects", "relations", "count", "background"):
        value = getattr(verdict, name)
        held = all(value) if isinstance(value, tuple) else value
        assert held == (name not in wrong), name


def test_tokens_are_the_same_however_a_text_is_written() -> None:
    assert tokenize("A large, RED circle!") == tokenize("a  large red CIRCLE")
    assert tokenize("ﬁne CAFÉ") == ["fine", "café"]
    assert tokenize("…!") == []
