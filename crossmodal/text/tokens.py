"""Convert text to tokens and back, identically in training and in serving.

Words follow Unicode (https://unicode.org/reports/tr29/#Word_Boundaries), with three
exceptions: a full stop or colon between letters ends a word ("circle.A"), so does an underscore,
and text in scripts of Southeast Asia is one word up to the next space, as splitting it takes a
dictionary. Each Chinese or Japanese character is a word, as in Unicode.
"""

import unicodedata
from collections.abc import Sequence

import regex

_DENSE = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]")  # written without spaces
_UNDIVIDED = r"\p{Line_Break=Complex_Context}"  # Thai, Lao, Khmer, Burmese and related scripts

# Names and numbers are those of Unicode's rules. Not `\b` of the library: it ends a word at an
# apostrophe after a combining mark.
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
# Invisible: they join letters or select glyphs. U+200B (zero-width space) becomes a space.
_FORMAT = regex.compile(r"(?!\u200b)[\p{Cf}\p{Variation_Selector}\u20e3]")


def tokenize(text: str) -> list[str]:
    """Return the words in lower case, NFKC-normalized, without punctuation.

    >>> tokenize("A small, RED circle — on a ﬁne day")
    ['a', 'small', 'red', 'circle', 'on', 'a', 'fine', 'day']
    """
    folded = text.lower() if text.isascii() else _folded(text)
    words: list[str] = _WORD.findall(folded)
    return words


def _folded(text: str) -> str:
    plain = _FORMAT.sub("", text.translate(_APOSTROPHES)).replace("\u200b", " ")
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", plain).lower())
    return folded.translate(_APOSTROPHES)  # also those decomposed from a letter, such as ŉ


def joined(words: Sequence[str]) -> str:
    """Join words to a text, with spaces where their scripts use them.

    >>> joined(["a", "red", "dog"]), joined(["红", "色", "的", "狗"])
    ('a red dog', '红色的狗')
    """
    text = ""
    for word in words:
        dense = text and _DENSE.match(text[-1]) and _DENSE.match(word)
        text += word if dense or not text else f" {word}"
    return text


def is_dense(text: str) -> bool:
    """Return whether a text has Chinese or Japanese characters, each of which is a token."""
    return _DENSE.search(text) is not None


def is_undivided(text: str) -> bool:
    """Return whether a text has a Southeast Asian script, split only at spaces."""
    return regex.search(_UNDIVIDED, text) is not None
