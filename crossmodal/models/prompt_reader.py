"""Detection of prompts that are too long for a pipeline: it truncates them without an error."""

from collections.abc import Mapping
from typing import Any, Self

from crossmodal.text.sentences import cut_off

NAMES = ("tokenizer", "tokenizer_2", "tokenizer_3")
UNLIMITED = 100_000  # tokens: tokenizers without a limit have a larger number


class PromptReader:
    """The tokenizer of a pipeline with the highest token limit, and that limit."""

    def __init__(self, tokenizer: Any, limit: int) -> None:
        self._tokenizer = tokenizer
        self._limit = limit

    @classmethod
    def of(cls, pipe: Any, takes: Mapping[str, Any]) -> Self:
        """Return the reader of a pipeline whose `__call__` `takes` these parameters."""
        found = [getattr(pipe, name, None) for name in NAMES]
        limits = [(_limit(one, takes), one) for one in found if one is not None]
        limit, tokenizer = max(limits, key=lambda pair: pair[0], default=(0, None))
        return cls(tokenizer, limit)

    def warning(self, what: str, text: str) -> str:
        """Return the warning for a truncated text; empty if all of it is read."""
        if self._tokenizer is None:
            return ""
        tokens = self._tokenizer(text, truncation=False, verbose=False).input_ids
        if len(tokens) <= self._limit:
            return ""
        cut = self._tokenizer.decode(tokens[self._limit - 1 :], skip_special_tokens=True).strip()
        return cut_off(what, len(tokens), "tokens", self._limit, cut)


def _limit(tokenizer: Any, takes: Mapping[str, Any]) -> int:
    """Return the max tokens of a text, with its start and end tokens."""
    told = takes.get("max_sequence_length")
    if told is None or "CLIP" in type(tokenizer).__name__:
        return int(min(tokenizer.model_max_length, UNLIMITED))
    return int(told.default)
