"""Text to tokens, the same way in training and in serving."""

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def tokenize(text: str) -> list[str]:
    """Words in lower case, Unicode-normalised (NFKC), without punctuation.

    >>> tokenize("A small, RED circle — on a ﬁne day")
    ['a', 'small', 'red', 'circle', 'on', 'a', 'fine', 'day']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())
