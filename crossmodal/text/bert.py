"""BERT's contextual vectors (Devlin et al. 2018), from a local folder.

The folder is what transformers' `save_pretrained` writes: `config.json`, the tokenizer's
files and `model.safetensors`. Nothing is downloaded. Needs the extra `bert`.
"""

import threading
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.errors import InvalidBundle, InvalidSetting
from crossmodal.extras import remedy
from crossmodal.text.sentences import cut_off
from crossmodal.text.tokens import tokenize
from crossmodal.text.vectors import Encoded

WEIGHTS = "model.safetensors"
# Files of a BERT folder that a bundle includes, if present.
FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "special_tokens_map.json",
    WEIGHTS,
)


class BertVectors:
    """A `TextVectors` of BERT: the last hidden state per token; one text at a time, on the CPU."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer, self._model = _load(folder)
        self._lock = threading.Lock()  # truncation is mutable state of the tokenizer

    @property
    def dim(self) -> int:
        return int(self._model.config.hidden_size)

    @property
    def words(self) -> list[str]:
        """The whole words of the vocabulary, without word pieces and punctuation."""
        numbers = self._tokenizer.get_vocab()  # its order differs between processes
        return [word for word in sorted(numbers, key=numbers.__getitem__) if word.isalpha()]

    def encode(self, text: str, max_words: int) -> Encoded:
        """Return the hidden states (T, D) of the tokens; none if BERT knows no word."""
        import torch

        words = text.split()
        limit = min(max_words, int(self._model.config.max_position_embeddings))
        with self._lock:
            unknown = tuple(dict.fromkeys(word for word in words if self._is_unknown(word)))
            if len(unknown) == len(set(words)):
                return Encoded(np.zeros((0, self.dim), np.float32), unknown)
            whole = self._tokenizer(text, truncation=False, verbose=False).input_ids
            tokens = self._tokenizer(text, return_tensors="pt", truncation=True, max_length=limit)
            first, rest = (self._text(part) for part in (whole[: limit - 1], whole[limit - 1 :]))
        with torch.inference_mode():
            states = self._model(**tokens).last_hidden_state[0]  # (T, D)
        read, cut = text, ""
        if len(whole) > limit:
            read = first
            cut = cut_off("prompt", len(whole), "tokens", limit, rest)
        strange = {token for word in unknown for token in tokenize(word)}
        known = tuple(token for token in tokenize(read) if token not in strange)
        return Encoded(states.float().numpy(), unknown, known, cut)

    def _text(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True)).strip()

    def _is_unknown(self, word: str) -> bool:
        pieces = self._tokenizer.tokenize(word)
        return all(piece == self._tokenizer.unk_token for piece in pieces)


def _load(folder: Path) -> tuple[Any, Any]:
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError as e:
        raise InvalidSetting(f"BERT needs transformers: {remedy('bert')}") from e
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        model = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError) as e:
        raise InvalidBundle(f"{folder} has no BERT model: {str(e).splitlines()[0]}") from e
    return tokenizer, model.eval()
