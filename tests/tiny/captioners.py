"""Random captioners of transformers in the true format, of 0.2 MB each, made without a network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.tiny import tokenizers

t: Any = transformers
VISION = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
SIDE = {"height": 32, "width": 32}


def blip(folder: Path) -> None:
    tokenizer = tokenizers.bert(folder / "bert")
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "encoder_hidden_size": 32,
        "intermediate_size": 37,
        "projection_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "bos_token_id": tokenizer.convert_tokens_to_ids("[DEC]"),
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = t.BlipConfig(text_config=text, vision_config=VISION, projection_dim=32)
    t.BlipForConditionalGeneration(config).save_pretrained(folder)
    t.BlipProcessor(t.BlipImageProcessor(size=SIDE), tokenizer).save_pretrained(folder)


def vit_gpt2(folder: Path) -> None:
    """An encoder and a decoder, of which `AutoProcessor` finds the tokenizer alone."""
    tokenizer = tokenizers.words()
    decoder = t.GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=2,
        add_cross_attention=True,
        is_decoder=True,
    )
    config = t.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        t.ViTConfig(**VISION), decoder
    )
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 0, 1, 2
    model = t.VisionEncoderDecoderModel(config=config)
    model.generation_config = t.GenerationConfig(
        decoder_start_token_id=0, bos_token_id=0, pad_token_id=1, eos_token_id=2, max_new_tokens=12
    )
    for part in (model, tokenizer, t.ViTImageProcessor(size=SIDE)):
        part.save_pretrained(folder)


def git(folder: Path) -> None:
    tokenizer = tokenizers.bert(folder / "bert")
    config = t.GitConfig(
        vision_config=VISION,
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=37,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )
    t.GitForCausalLM(config).save_pretrained(folder)
    images = t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SIDE)
    t.GitProcessor(images, tokenizer).save_pretrained(folder)


FAMILIES: dict[str, Callable[[Path], None]] = {"blip": blip, "vit-gpt2": vit_gpt2, "git": git}


def make(name: str, folder: Path) -> Path:
    """The folder of a family, the same whenever it is made."""
    torch.manual_seed(0)
    FAMILIES[name](folder)
    return folder
