"""Parsing of a prompt for a bundle's txt2img model: known words, suggestions, refusal."""

from collections.abc import Sequence
from typing import NamedTuple

from crossmodal.errors import InvalidBundle, UnknownWords, quoted
from crossmodal.jobs.vocabulary import Vocabulary
from crossmodal.text.common_words import NO_THINGS
from crossmodal.text.hints import nearest
from crossmodal.text.sentences import not_known
from crossmodal.text.vectors import Encoded, TextVectors

HINTED = 20  # max unknown words of a prompt that get suggestions
MAX_SHOWN = 80  # characters of a prompt in a message
MAX_THINGS = 12  # drawable things that a message lists


class Understood(NamedTuple):
    """A prompt as vectors, and known words that some of its unknown words may mean."""

    text: Encoded
    suggestions: dict[str, str]


class Understanding:
    """A parser of prompts with a bundle's words; `things` are those that name what it can draw.

    Without `things`, as for captions of photographs, every word counts as a thing that is not in
    `NO_THINGS`, English's common other words; if that leaves none, every word.
    """

    def __init__(self, source: TextVectors, things: Sequence[str], max_words: int) -> None:
        """Raise `InvalidBundle` if no word that names a thing has a vector."""
        self._source = source
        self._max_words = max_words
        self._words = source.words
        self._things = frozenset(things)
        self.vocabulary = Vocabulary.of(things, self._words)
        self._any_will_do = not things and all(word in NO_THINGS for word in self._words)
        if not any(map(self._names_a_thing, self._words)):
            raise InvalidBundle(
                "no word of the bundle that names a thing has a vector: train the bundle again"
            )

    @property
    def example(self) -> str:
        """A prompt of one word that names a thing."""
        return next(
            word for word in (*self.vocabulary.objects, *self._words) if self._names_a_thing(word)
        )

    def read(self, prompt: str) -> Understood | UnknownWords:
        """Parse a prompt; returns `UnknownWords` if it names nothing that can be drawn."""
        text = self._source.encode(prompt, self._max_words)
        hints = {
            word: near for word in text.unknown[:HINTED] if (near := nearest(word, self._words))
        }
        if any(map(self._names_a_thing, text.known)):
            return Understood(text, hints)
        return self._refusal(prompt, text, hints)

    def _names_a_thing(self, word: str) -> bool:
        if self._things:
            return word in self._things
        return self._any_will_do or word not in NO_THINGS

    def _refusal(self, prompt: str, text: Encoded, hints: dict[str, str]) -> UnknownWords:
        shown = prompt if len(prompt) <= MAX_SHOWN else f"{prompt[:MAX_SHOWN]}…"
        why = not_known(text.unknown, hints) or "none of its words names a thing"
        parts = [f"no object of the prompt {quoted(shown)} is known: {why}", text.cut]
        said = "; ".join(part for part in parts if part)
        return UnknownWords(f"{said}. {self._remedy}")

    @property
    def _remedy(self) -> str:
        all_words = "`crossmodal models show NAME`, or GET /v1/models/NAME, lists its words"
        if not self._things:
            return f"Use words of the captions that the model was trained on: {all_words}"
        objects = self.vocabulary.objects
        more = ", …" if len(objects) > MAX_THINGS else ""
        return f"The model can draw {', '.join(objects[:MAX_THINGS])}{more}: {all_words}"
