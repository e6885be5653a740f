"""The known word that is hinted at, and the sentences about what of a prompt was not read."""

from crossmodal.text.hints import nearest
from crossmodal.text.sentences import cut_off, not_known, passed_over
from tests.at_once import at_once

KNOWN = " ".join(
    [
        "a on the of is and an at under background right left",
        "red green blue yellow orange purple gray",
        "large big small circle square triangle star ring heart dot ball row three кот собака",
    ]
).split()


@at_once(
    "word, near",
    [
        ("cirlce", "circle"),
        ("bleu", "blue"),
        ("backgruond", "background"),
        ("teh", "the"),
        ("rde", "red"),
        ("lrage", "large"),
        ("gren", "green"),
        ("sqaure", "square"),
        ("yelow", "yellow"),
        ("purpel", "purple"),
        ("xircle", "circle"),
        ("erd", "red"),
        ("stars", "star"),
        ("tow", None),
        ("собкаа", "собака"),
    ],
)
def test_a_slip_of_the_fingers_is_mended(word: str, near: str | None) -> None:
    assert nearest(word, KNOWN) == near


@at_once(
    "word",
    [
        "rad",
        "bag",
        "bug",
        "rod",
        "hat",
        "shoe",
        "snow",
        "tea",
        "team",
        "tank",
        "male",
        "bottle",
        "bridge",
        "font",
        "plum",
        "copper",
        "blug",
        "three",
        "tree",
        "they",
        "car",
        "dog",
        "cow",
        "king",
        "road",
        "photo",
        "flower",
        "banana",
        "2",
        "3d",
        "re2",
        "x",
        "원",
        "红",
        "кат",
        "сircle",
        "qq",
        "xylophone",
        "r" * 4_000,
    ],
)
def test_what_is_no_slip_of_a_known_word_has_no_hint(word: str) -> None:
    assert nearest(word, [known for known in KNOWN if known not in (word, "three", "кот")]) is None


def test_an_exchange_is_one_edit_and_not_two() -> None:
    assert nearest("rign", ["ring"]) == "ring"


def test_a_small_word_of_english_is_no_slip_of_another() -> None:
    assert nearest("three", ["there"]) is None
    assert nearest("thre", ["there"]) is None
    assert nearest("thrid", ["third"]) == "third"


def test_of_words_as_near_the_one_with_the_same_beginning_comes_first_then_the_more_frequent() -> (
    None
):
    assert nearest("canter", ["banter", "center", "canner"]) == "center"
    assert nearest("banker", ["canker", "banter"]) == "banter"
    assert nearest("blak", ["blank", "black"]) == "blank"
    assert nearest("blak", ["black", "blank"]) == "black"


def test_unknown_words_are_named_in_one_sentence() -> None:
    assert passed_over((), {}) == not_known((), {}) == ""
    assert passed_over(["happy"], {}) == (
        "the model does not know the word 'happy': it was ignored"
    )
    assert passed_over(["happy", "lrage"], {"lrage": "large"}) == (
        "the model does not know the words 'happy' and 'lrage' (did you mean 'large'?): "
        "they were ignored"
    )


def test_many_and_long_words_make_no_long_sentence() -> None:
    said = passed_over([f"w{i}" + "x" * 4_000 for i in range(1_000)], {})
    assert len(said) < 500
    assert "and 992 more" in said


def test_what_was_cut_is_shown_as_far_as_there_is_room() -> None:
    said = cut_off("prompt", 90, "tokens", 77, "z" * 81)
    assert said.startswith("the prompt has 90 tokens, of which the model reads 77: ")
    assert said.endswith(f"it does not read '{'z' * 80}…'")
