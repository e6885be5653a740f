"""Messages about a prompt that was only partly read, shared by all models."""

from collections.abc import Mapping, Sequence

MAX_NAMED = 8  # words to list
MAX_LETTERS = 40  # of a listed word
MAX_CUT = 80  # characters of the truncated part


def not_known(words: Sequence[str], hints: Mapping[str, str]) -> str:
    """Return the message that a model does not know `words`; empty if there are none.

    >>> not_known(["happy", "lrage"], {"lrage": "large"})
    "the model does not know the words 'happy' and 'lrage' (did you mean 'large'?)"
    """
    if not words:
        return ""
    what = "word" if len(words) == 1 else "words"
    return f"the model does not know the {what} {_listed(words, hints)}"


def passed_over(words: Sequence[str], hints: Mapping[str, str]) -> str:
    """Return the message that a picture was drawn without the unknown `words`."""
    said = not_known(words, hints)
    return said and f"{said}: {'it was' if len(words) == 1 else 'they were'} ignored"


def cut_off(what: str, count: int, unit: str, limit: int, cut: str) -> str:
    """Return the message that a model reads only `limit` of the `count` units of a text."""
    shown = cut if len(cut) <= MAX_CUT else f"{cut[:MAX_CUT]}…"
    return (
        f"the {what} has {count} {unit}, of which the model reads {limit}: it does not read "
        f"{shown!r}"
    )


def _listed(words: Sequence[str], hints: Mapping[str, str]) -> str:
    named = [_named(word, hints.get(word)) for word in words[:MAX_NAMED]]
    if (more := len(words) - MAX_NAMED) > 0:
        named.append(f"{more} more")
    *first, last = named
    return f"{', '.join(first)} and {last}" if first else last


def _named(word: str, hint: str | None) -> str:
    shown = word if len(word) <= MAX_LETTERS else f"{word[:MAX_LETTERS]}…"
    return f"'{shown}' (did you mean '{hint}'?)" if hint else f"'{shown}'"
