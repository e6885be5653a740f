"""The rendered data set, and the parser that reads its facts back from words."""

from itertools import islice

import pytest

from crossmodal.datasets.base import examples
from crossmodal.datasets.scenes import Scenes
from crossmodal.datasets.scenes.facts import Claims, Said, Verdict, compare, parse
from crossmodal.datasets.scenes.grammar import describe
from crossmodal.datasets.scenes.world import (
    COLORS,
    SIZES,
    Rng,
    Scene,
    is_held_out,
    is_tellable,
    neighbours,
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


@at_once("split, held_out", [("train", False), ("seen", False), ("heldout", True)])
def test_held_out_combinations_are_only_where_they_belong(split: str, held_out: bool) -> None:
    assert {is_held_out(s) for s, _ in islice(Scenes().scenes(split, 0), 300)} == {held_out}


def test_everything_stands_out_and_inside(scenes: list[tuple[Scene, Rng]]) -> None:
    for scene, _ in scenes:
        for thing in scene.things:
            assert is_tellable(thing.color, scene.background)
            assert SIZES[thing.size][0] <= thing.radius <= SIZES[thing.size][1]
            assert thing.radius <= min(thing.x, thing.y)
            assert max(thing.x, thing.y) <= 1 - thing.radius


def test_boxes_are_in_the_order_the_caption_names_them() -> None:
    for scene, rng in islice(Scenes().scenes("train", 1), 200):
        text, order = describe(scene, rng)
        words = tokenize(text)
        synonyms = {"turquoise": "cyan", "violet": "purple"}
        named = [synonyms.get(w, w) for w in words if synonyms.get(w, w) in COLORS]
        assert named == [scene.things[i].color for i in order]


def test_the_complete_caption_leaves_nothing_out(scenes: list[tuple[Scene, Rng]]) -> None:
    for scene, _ in scenes:
        claims = parse(describe(scene)[0])
        assert claims.background == scene.background
        assert claims.place == scene.place
        assert sorted(map(repr, claims.objects)) == sorted(
            repr(Said(t.shape, t.color, t.size)) for t in scene.things
        )
        assert len(claims.relations) == len(neighbours(scene))


def test_every_wording_of_a_scene_is_true_of_it() -> None:
    for scene, rng in islice(Scenes().scenes("heldout", 4), 400):
        text = describe(scene, rng)[0]
        verdict = compare(parse(text), parse(describe(scene)[0]))
        assert verdict.scene, (text, verdict)
        assert len(verdict.objects) == len(scene.things)
        assert all(said.color for said in parse(text).objects), text


@at_once(
    "text, claims",
    [
        ("A tiny RED disc over a box, on white.",
         Claims((Said("circle", "red", "small"), Said("square")), ((0, "above", 1),), None,
                "white")),
        ("a star that is small and red in the upper left corner",
         Claims((Said("star", "red", "small"),), (), "top left")),
        ("box that is red and tiny pink diamond",
         Claims((Said("square", "red"), Said("diamond", "pink", "small")))),
        ("a box that is large and green, pink circle and a blue star in a row",
         Claims((Said("square", "green", "big"), Said("circle", "pink"), Said("star", "blue")),
                ((0, "left of", 1), (1, "left of", 2)))),
        ("a red plus left of a blue ring and under a heart",
         Claims((Said("cross", "red"), Said("ring", "blue"), Said("heart")),
                ((0, "left of", 1), (0, "below", 2)))),
        ("a red circle, a blue circle and a green circle in a column",
         Claims((Said("circle", "red"), Said("circle", "blue"), Said("circle", "green")),
                ((0, "above", 1), (1, "above", 2)))),
        ("the cat sat on the mat", Claims()),
    ],
)  # fmt: skip
def test_facts_are_read_from_words(text: str, claims: Claims) -> None:
    assert parse(text) == claims


TRUTH = "a small red circle to the left of a big blue star on a white background"


@at_once(
    "caption, wrong",
    [
        (TRUTH, ()),
        ("a big blue star to the right of a small red circle on a white background", ()),
        ("a small red circle to the left of a big green star on a white background",
         ("objects", "relations")),
        ("a small blue circle to the left of a big red star on a white background",
         ("objects", "relations")),
        ("a red circle to the left of a big blue star on a white background",
         ("objects", "relations")),
        ("a small red circle to the right of a big blue star on a white background",
         ("relations",)),
        ("a small red circle and a big blue star on a white background", ("relations",)),
        ("a small red circle to the left of a big blue star", ("background",)),
        ("a small red circle to the left of a big blue star and above a small pink heart on a "
         "white background", ("count",)),
    ],
)  # fmt: skip
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
