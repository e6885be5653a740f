"""The vocabulary of a model, as reported to clients."""

from collections.abc import Collection, Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict

MAX_WORDS = 20_000  # reported in total
LISTED_WORDS = 200  # reported per model in the list of all models


class Vocabulary(BaseModel):
    """The words of a model with a limited vocabulary: their `count`, and some of them.

    `objects` are names of what it can draw, if known, plurals last; `words` are the others, most
    frequent first.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    count: int
    objects: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, objects: Sequence[str], words: Sequence[str]) -> Self:
        """Return the vocabulary of a model that knows `words`; `objects` name what it draws."""
        known, things = set(words), set(objects)
        named = [word for word in dict.fromkeys(objects) if word in known]
        named.sort(key=lambda word: _is_plural(word, things))
        found = cls(
            count=len(known),
            objects=tuple(named),
            words=tuple(word for word in words if word not in things),
        )
        return found.shortened(MAX_WORDS)

    @property
    def is_whole(self) -> bool:
        """Return whether all words are listed."""
        return self.count == len(self.objects) + len(self.words)

    def shortened(self, most: int) -> Self:
        """Return a copy that lists at most `most` words, objects first."""
        objects = self.objects[:most]
        words = self.words[: most - len(objects)]
        return self.model_copy(update={"objects": objects, "words": words})


def _is_plural(word: str, words: Collection[str]) -> bool:
    return any(word.endswith(end) and word.removesuffix(end) in words for end in ("s", "es"))
