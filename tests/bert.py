"""A BERT of a few thousand random weights, saved in the format of transformers."""

from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizer

WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "small",
    "big",
    "red",
    "blue",
    "circle",
    "star",
    "on",
    "white",
    "background",
    "square",
    "##s",
    "the",
    "to",
    "left",
    "of",
    "and",
)


def make_bert(folder: Path) -> Path:
    """Write `config.json`, the tokenizer's files and `model.safetensors` into `folder`."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    BertModel(config).save_pretrained(folder)
    return folder
