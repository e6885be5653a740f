"""What is told of the words that a model knows."""

from collections.abc import Collection, Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict

MAX_WORDS = 20_000  # that are told
LISTED_WORDS = 200  # of a model, where all models are listed


class Vocabulary(BaseModel):
    """The words that a model knows, where these are only some: `count` of them, some listed.

    `objects` name what it can draw, where that is known, plurals last; `words` are the others, the
    most frequent first.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    count: int
    objects: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, objects: Sequence[str], words: Sequence[str]) -> Self:
        """That of a model that knows all of `words`, of which `objects` name things."""
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
        """Whether all words are listed."""
        return self.count == len(self.objects) + len(self.words)

    def shortened(self, most: int) -> Self:
        """With no more than so many words listed, objects first."""
        objects = self.objects[:most]
        words = self.words[: most - len(objects)]
        return self.model_copy(update={"objects": objects, "words": words})


def _is_plural(word: str, words: Collection[str]) -> bool:
    return any(word.endswith(end) and word.removesuffix(end) in words for end in ("s", "es"))
