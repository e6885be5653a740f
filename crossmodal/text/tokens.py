"""Text to tokens and back, the same way in training and in serving.

Words are those of Unicode (https://unicode.org/reports/tr29/#Word_Boundaries), with three
exceptions of ours: a full stop or a colon between letters ends one ("circle.A"), an underscore
does, and what is written in scripts of South East Asia is one word up to its next space, as only
a dictionary tells more. Chinese and Japanese characters are a word each, as Unicode has it.
"""

import unicodedata
from collections.abc import Sequence

import regex

_DENSE = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]")  # written without spaces
_UNDIVIDED = r"\p{Line_Break=Complex_Context}"  # Thai, Lao, Khmer, Burmese and their kin

# By the names and numbers of Unicode's rules. `\b` of the library is not used: it ends a word
# at an apostrophe after a combining mark.
_MARKS = r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]*+"  # 4
_LETTER = r"[\p{WB=ALetter}\p{WB=Hebrew_Letter}]"
_IN_WORD = rf"(?:'|(?!:)\p{{WB=MidLetter}}){_MARKS}(?={_LETTER})"  # 6, 7
_IN_HEBREW = r"(?<=\p{WB=Hebrew_Letter})\"(?=\p{WB=Hebrew_Letter})"  # 7b, 7c
_IN_NUMBER = rf"['\p{{WB=MidNum}}\p{{WB=MidNumLet}}]{_MARKS}(?=\p{{WB=Numeric}})"  # 11, 12
_WORD = regex.compile(
    rf"{_UNDIVIDED}[{_UNDIVIDED}\p{{M}}]*+"
    rf"|(?:{_LETTER}++{_MARKS}(?:{_IN_WORD}|{_IN_HEBREW})?+"  # 5, 9
    rf"|\p{{WB=Numeric}}++{_MARKS}(?:{_IN_NUMBER})?+)++"  # 8, 10
    rf"|(?:\p{{WB=Katakana}}{_MARKS})++"  # 13
    rf"|[\p{{L}}\p{{N}}]{_MARKS}"
)
_APOSTROPHES = dict.fromkeys(map(ord, "\u2018\u2019\u201b\u02bc\u00b4"), "'")
# Not seen, they join letters or choose their look; a space of no width is a space.
_FORMAT = regex.compile(r"(?!\u200b)[\p{Cf}\p{Variation_Selector}\u20e3]")


def tokenize(text: str) -> list[str]:
    """Words in lower case, Unicode-normalised (NFKC), without punctuation.

    >>> tokenize("A small, RED circle — on a ﬁne day")
    ['a', 'small', 'red', 'circle', 'on', 'a', 'fine', 'day']
    """
    folded = text.lower() if text.isascii() else _folded(text)
    words: list[str] = _WORD.findall(folded)
    return words


def _folded(text: str) -> str:
    plain = _FORMAT.sub("", text.translate(_APOSTROPHES)).replace("\u200b", " ")
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", plain).lower())
    return folded.translate(_APOSTROPHES)  # also those that were part of a letter, as in ŉ


def joined(words: Sequence[str]) -> str:
    """Words as a text, with spaces where their scripts have them.

    >>> joined(["a", "red", "dog"]), joined(["红", "色", "的", "狗"])
    ('a red dog', '红色的狗')
    """
    text = ""
    for word in words:
        dense = text and _DENSE.match(text[-1]) and _DENSE.match(word)
        text += word if dense or not text else f" {word}"
    return text


def is_dense(text: str) -> bool:
    """Whether Chinese or Japanese is in it, of which each character is a token."""
    return _DENSE.search(text) is not None


def is_undivided(text: str) -> bool:
    """Whether a script is in it whose words are told apart by its spaces alone."""
    return regex.search(_UNDIVIDED, text) is not None
