"""Text to tokens and back, the same way in training and in serving.

Words end where Unicode says so (https://unicode.org/reports/tr29/), with three exceptions of
ours: a full stop or a colon between letters ends one ("circle.A"), an underscore does, and
what is written in scripts of South East Asia is one word up to its next space, as only a
dictionary tells more. Chinese and Japanese characters are a word each, as Unicode has it.
"""

import unicodedata
from collections.abc import Sequence

import regex

_DENSE = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]")  # written without spaces
_UNDIVIDED = r"\p{Line_Break=Complex_Context}"  # Thai, Lao, Khmer, Burmese and their kin
_WORD = regex.compile(rf"{_UNDIVIDED}[{_UNDIVIDED}\p{{M}}]*|\b\w.*?\b", regex.WORD)
_ENDS = regex.compile(r"[.:](?<=\p{L}\p{M}*.)(?=\p{L})|_")
_APOSTROPHES = dict.fromkeys(map(ord, "\u2018\u2019\u201b\u02bc\u00b4"), "'")
# Not seen, they join letters or choose their look; a space of no width is a space.
_FORMAT = regex.compile(r"(?!\u200b)[\p{Cf}\p{Variation_Selector}\u20e3]")


def tokenize(text: str) -> list[str]:
    """Words in lower case, Unicode-normalised (NFKC), without punctuation.

    >>> tokenize("A small, RED circle — on a ﬁne day")
    ['a', 'small', 'red', 'circle', 'on', 'a', 'fine', 'day']
    """
    folded = text.lower() if text.isascii() else _folded(text)
    words: list[str] = _WORD.findall(_ENDS.sub(" ", folded))
    return words


def _folded(text: str) -> str:
    plain = _FORMAT.sub("", text.translate(_APOSTROPHES)).replace("\u200b", " ")
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", plain).lower())


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
