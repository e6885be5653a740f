"""Stable Diffusion 1.5 in its true dimensions with random weights, made without a network.

    python -m tests.tiny.sd15 FOLDER [--small]

The true one is 4.1 GB in float32. What it draws is noise; what it takes is what the real one takes,
but for the vocabulary, which is that of the tiny tokenizer.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
import transformers

from tests.tiny import tokenizers

d: Any = diffusers
t: Any = transformers


class Size(NamedTuple):
    """What is large in it."""

    unet: tuple[int, ...]
    vae: tuple[int, ...]
    text_width: int
    text_layers: int
    heads: int


TRUE = Size((320, 640, 1280, 1280), (128, 256, 512, 512), 768, 12, 12)
SMALL = Size((32, 64, 64, 64), (32, 32, 64, 64), 64, 2, 4)


def _unet(size: Size) -> Any:
    crossing = ("CrossAttnDownBlock2D",) * 3, ("CrossAttnUpBlock2D",) * 3
    return d.UNet2DConditionModel(
        sample_size=64,
        in_channels=4,
        out_channels=4,
        layers_per_block=2,
        block_out_channels=size.unet,
        attention_head_dim=8,
        cross_attention_dim=size.text_width,
        down_block_types=(*crossing[0], "DownBlock2D"),
        up_block_types=("UpBlock2D", *crossing[1]),
        norm_num_groups=32,
    )


def _vae(size: Size) -> Any:
    return d.AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        sample_size=512,
        layers_per_block=2,
        block_out_channels=size.vae,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=32,
    )


def _text(size: Size, tokenizer: Any) -> Any:
    return t.CLIPTextModel(
        t.CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.text_width,
            intermediate_size=4 * size.text_width,
            num_hidden_layers=size.text_layers,
            num_attention_heads=size.heads,
            max_position_embeddings=77,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            projection_dim=size.text_width,
        )
    )


def _scheduler() -> Any:
    return d.PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
        num_train_timesteps=1_000,
    )


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    """What is made has weights of a type: nothing is made twice."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def make(folder: Path, size: Size = TRUE, dtype: torch.dtype = torch.float32) -> Path:
    """The folder, with weights of a type, the same whenever it is made."""
    torch.manual_seed(0)
    tokenizer = tokenizers.clip(folder / "tokenizer")
    with _default(dtype):
        d.StableDiffusionPipeline(
            unet=_unet(size),
            vae=_vae(size),
            text_encoder=_text(size, tokenizer),
            tokenizer=tokenizer,
            scheduler=_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            image_encoder=None,
            requires_safety_checker=False,
        ).save_pretrained(folder)
    return folder


def main() -> None:
    """Make it where the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--small", action="store_true", help="the same parts, a few MB")
    args = parser.parse_args()
    make(args.folder, SMALL if args.small else TRUE)


if __name__ == "__main__":
    main()
