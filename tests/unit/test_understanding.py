"""Which prompts name something that can be drawn, as a bundle's words have it."""

import pytest

from crossmodal.errors import UnknownWords
from crossmodal.models.understanding import Understanding, Understood
from crossmodal.text.bert import BertVectors
from crossmodal.text.word2vec import train_vectors
from crossmodal.text.word_vectors import WordVectors
from tests.at_once import at_once
from tests.bert import make_bert

CAPTIONS = [
    "a red circle on a white background",
    "two red circles at the top left",
    "a photo of a small blue star and a square",
    "three stars in a row under an orange square",
]
THINGS = ("circle", "circles", "star", "stars", "square")


@pytest.fixture(scope="module")
def words() -> WordVectors:
    return train_vectors(CAPTIONS, dim=8)


@pytest.fixture(scope="module")
def of_things(words: WordVectors) -> Understanding:
    return Understanding(words, THINGS, 8)


@pytest.fixture(scope="module")
def of_captions(words: WordVectors) -> Understanding:
    return Understanding(words, (), 8)


def refusal(understanding: Understanding, prompt: str) -> str:
    found = understanding.read(prompt)
    assert isinstance(found, UnknownWords)
    return str(found)


@at_once(
    "prompt",
    [
        "a red car on a road",
        "a photo of a dog",
        "portrait of my cat",
        "red",
        "!!!",
        "a cat and a dog on a white background",
        "a small blue background at the top left",
        "日本語",
    ],
)
def test_a_prompt_without_a_known_object_is_refused(
    of_things: Understanding, of_captions: Understanding, prompt: str
) -> None:
    for understanding in (of_things, of_captions):
        assert "no object of the prompt" in refusal(understanding, prompt)


@at_once("prompt", ["circle", "two happy stars", "a dog on a SQUARE", "red circles"])
def test_a_prompt_with_one_known_object_is_read(
    of_things: Understanding, of_captions: Understanding, prompt: str
) -> None:
    for understanding in (of_things, of_captions):
        assert isinstance(understanding.read(prompt), Understood)


def test_where_nothing_is_said_of_objects_any_word_will_do_that_may_be_one(
    of_things: Understanding, of_captions: Understanding
) -> None:
    assert isinstance(of_captions.read("an orange"), Understood)
    assert isinstance(of_things.read("an orange"), UnknownWords)


def test_where_no_word_may_be_an_object_any_word_will_do() -> None:
    colors = Understanding(train_vectors(["red", "blue on red"], dim=8), (), 8)
    assert isinstance(colors.read("blue"), Understood)
    assert isinstance(colors.read("green"), UnknownWords)


def test_a_refusal_names_what_is_not_known_with_hints_and_what_can_be_drawn(
    of_things: Understanding, of_captions: Understanding
) -> None:
    said = refusal(of_things, "a red cra and a crcle")
    assert said == (
        "no object of the prompt 'a red cra and a crcle' is known: the model does not know the "
        "words 'cra' and 'crcle' (did you mean 'circle'?). The model can draw circle, star, "
        "square, circles, stars: `crossmodal models show NAME`, or GET /v1/models/NAME, lists its "
        "words"
    )
    assert refusal(of_captions, "zorg").endswith(
        "the model does not know the word 'zorg'. Use words of the captions that the model was "
        "trained on: `crossmodal models show NAME`, or GET /v1/models/NAME, lists its words"
    )


def test_a_refusal_of_words_that_are_all_known_says_that_none_is_an_object(
    of_things: Understanding,
) -> None:
    assert "is known: none of its words names a thing. " in refusal(of_things, "a red row")
    assert "none of its words names a thing" in refusal(of_things, "…")


def test_an_object_that_was_cut_off_is_none(of_things: Understanding) -> None:
    said = refusal(of_things, "red " * 8 + "circle")
    assert "it does not read 'circle'" in said


def test_long_prompts_do_not_make_long_refusals(of_things: Understanding) -> None:
    assert len(refusal(of_things, "zorgish frobs " * 280)) < 500


def test_the_example_names_an_object(of_things: Understanding, of_captions: Understanding) -> None:
    assert of_things.example == "circle"
    assert isinstance(of_captions.read(of_captions.example), Understood)


def test_the_vocabulary_has_objects_first_with_plurals_last(
    words: WordVectors, of_things: Understanding, of_captions: Understanding
) -> None:
    found = of_things.vocabulary
    assert found.objects == ("circle", "star", "square", "circles", "stars")
    assert sorted((*found.objects, *found.words)) == sorted(words.words)
    assert found.count == len(words.words)
    assert of_captions.vocabulary.objects == ()
    assert list(of_captions.vocabulary.words) == words.words


def test_berts_words_are_understood_alike(tmp_path_factory: pytest.TempPathFactory) -> None:
    source = BertVectors(make_bert(tmp_path_factory.mktemp("bert")))
    understanding = Understanding(source, ("circle", "star"), 8)
    assert isinstance(understanding.read("a small circle, слово"), Understood)
    assert isinstance(understanding.read("a small red background"), UnknownWords)
    long = understanding.read("a star and " + "a red circle " * 5)
    assert isinstance(long, Understood)
    assert long.text.known == ("a", "star", "and", "a", "red", "circle")
    assert long.text.cut.startswith("the prompt has 20 tokens, of which the model reads 8: it does")
