"""Tokenizers of a few words in the true formats, made without a network."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

TEXT = "a the red blue big small circle square star on white navy background photo of cat dog"
WORDS = TEXT.split()
t: Any = transformers
LETTERS = "abcdefghijklmnopqrstuvwxyz"
START, END = "<|startoftext|>", "<|endoftext|>"


def clip(folder: Path) -> Any:
    """Byte-pair encoding: all bytes, and merges that lead to each word."""
    folder.mkdir(parents=True, exist_ok=True)
    merges, vocabulary = _merges()
    _write(folder / "vocab.json", {token: i for i, token in enumerate(vocabulary)})
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines))
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": 77,
            "bos_token": START,
            "eos_token": END,
            "pad_token": END,
            "unk_token": END,
        },
    )
    return t.CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def _merges() -> tuple[list[tuple[str, str]], list[str]]:
    slow: Any = import_module("transformers.convert_slow_tokenizer")
    symbols = list(slow.bytes_to_unicode().values())
    vocabulary = [*symbols, *(symbol + "</w>" for symbol in symbols)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            if (pair := (parts[0], parts[1])) not in merges:
                merges.append(pair)
                vocabulary.append("".join(pair))
            parts[:2] = ["".join(pair)]
    return merges, list(dict.fromkeys([*vocabulary, START, END]))


def t5(folder: Path) -> Any:
    """Unigrams: the words, and letters for all else."""
    known = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *(("▁" + word, -2.0) for word in WORDS)]
    made = Tokenizer(models.Unigram([*known, *((letter, -6.0) for letter in LETTERS + "▁")], 2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    fast = t.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=77,
    )
    fast.save_pretrained(folder)
    return fast


def bert(folder: Path) -> Any:
    """Word pieces."""
    folder.mkdir(parents=True, exist_ok=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]"]
    vocabulary = [*special, *WORDS, *LETTERS, *("##" + letter for letter in LETTERS)]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)) + "\n")
    _write(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "BertTokenizer", "model_max_length": 64, "do_lower_case": True},
    )
    return t.BertTokenizer.from_pretrained(folder, local_files_only=True)


def words() -> Any:
    """Whole words, in the manner of GPT-2's special tokens."""
    vocabulary = {word: i for i, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return t.PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=64,
    )


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))
