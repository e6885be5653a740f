"""Where words end, in any script, and that what was trained on still reads the same."""

from itertools import islice

import pytest

from crossmodal.datasets.scenes import Scenes
from crossmodal.datasets.scenes.grammar import describe
from crossmodal.text.tokens import joined, tokenize
from crossmodal.training.telling import warnings_of_scripts
from tests.at_once import at_once

SAMPLES = {
    "a red dog": "a red dog",
    "A large, RED circle!": "a large red circle",
    "the end.Another": "the end another",
    "note:this, at 10:30": "note this at 10 30",
    "3.14 of 1,000": "3.14 of 1,000",
    "red_circle __ red-blue": "red circle red blue",
    "'red' dogs' rock'n'roll": "red dogs rock'n'roll",
    "…!": "",
    "ﬁne CAFÉ": "fine café",
    # combining marks
    "बिल्ली बिल्ला कुत्ता": "बिल्ली बिल्ला कुत्ता",
    "สี แดง ผู้ หญิง": "สี แดง ผู้ หญิง",
    "مُحَمَّد وَلَد": "مُحَمَّد وَلَد",
    "cafe\u0301": "caf\u00e9",
    "שָׁלוֹם": "שָׁלוֹם",
    # what is not seen
    "so\u00adft": "soft",
    "می\u200cخواهم": "میخواهم",
    "क्\u200dष": "क्ष",
    "\ufeffword \u200ered\u200f": "word red",
    "zero\u200bwidth": "zero width",
    "👩\u200d👧 cat ❤\ufe0f 1\ufe0f\u20e3": "cat 1",
    # apostrophes
    "don't don\u2019t don\u02bct don\u00b4t don\uff07t": "don't don't don't don't don't",
    "\u2018blue\u2019": "blue",
    "п\u2019ять п'ять": "п'ять п'ять",
    "माँ's cafe\u0323\u0301's": "माँ's caf\u1eb9\u0301's",
    "\u0149": "n",
    "\u0301 a \u0301b": "a b",  # marks without a letter
    # letters of other alphabets
    "İstanbul": "i\u0307stanbul",
    "col·lecció": "col·lecció",
    "한국어 단어": "한국어 단어",
    'צה"ל': 'צה"ל',
    "日本語のカタカナ": "日 本 語 の カタカナ",
    "一只红狗 cat": "一 只 红 狗 cat",
}


@at_once("text, tokens", SAMPLES.items())
def test_words_end_where_unicode_says(text: str, tokens: str) -> None:
    assert tokenize(text) == tokens.split()


@at_once("text", SAMPLES)
def test_tokens_are_their_own_tokens(text: str) -> None:
    once = tokenize(text)
    assert tokenize(" ".join(once)) == once


@at_once("split", ["train", "seen", "pairs", "relations"])
def test_what_the_shipped_bundle_was_trained_on_is_split_at_spaces(split: str) -> None:
    for scene, rng in islice(Scenes().scenes(split, 1), 300):
        text, _ = describe(scene, rng)
        assert tokenize(text) == text.lower().replace(",", " ").replace(".", " ").split()


@at_once(
    "words, text",
    [
        (["a", "red", "dog"], "a red dog"),
        (["红", "色", "的", "狗"], "红色的狗"),
        (["a", "狗", "和", "cat"], "a 狗和 cat"),
        (["한국어", "단어"], "한국어 단어"),
        ([], ""),
    ],
)
def test_words_become_a_text_as_their_script_has_it(words: list[str], text: str) -> None:
    assert joined(words) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("红色的狗", "Chinese or Japanese"),
        ("犬がいる", "Chinese or Japanese"),
        ("แมวสีแดง", "Thai, Lao, Khmer or Burmese"),
        ("ខ្មែរ", "Thai, Lao, Khmer or Burmese"),
    ],
)
def test_words_that_cannot_be_told_apart_are_warned_of(text: str, said: str) -> None:
    [warning] = warnings_of_scripts([text, "a dog"])
    assert warning.startswith("1 captions are in " + said)


def test_nothing_is_said_of_scripts_with_spaces() -> None:
    assert list(warnings_of_scripts(["a dog", "लाल कुत्ता", "красный пёс"])) == []
