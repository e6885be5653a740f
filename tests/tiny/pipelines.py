"""Random pipelines of diffusers in the true format, under 2 MB each, made without a network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from tests.tiny import tokenizers

d: Any = diffusers
t: Any = transformers
BETAS = {"beta_start": 0.00085, "beta_end": 0.012}
BLOCKS = {
    "block_out_channels": (4, 8),
    "layers_per_block": 1,
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "norm_num_groups": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}


def _clip(folder: Path, kind: str = "CLIPTextModel", **more: Any) -> tuple[Any, Any]:
    """A tokenizer and the text model that reads it."""
    tokenizer = tokenizers.clip(folder / "tokenizer")
    config = t.CLIPTextConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        vocab_size=len(tokenizer),
        **more,
    )
    return tokenizer, getattr(t, kind)(config)


def _t5(folder: Path) -> tuple[Any, Any]:
    tokenizer = tokenizers.t5(folder / "t5")
    config = t.T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4
    )
    return tokenizer, t.T5EncoderModel(config)


def _vae(*, flow: bool = False) -> Any:
    more = (
        {
            "use_quant_conv": False,
            "use_post_quant_conv": False,
            "shift_factor": 0.0609,
            "scaling_factor": 1.5035,
        }
        if flow
        else {}
    )
    return d.AutoencoderKL(
        block_out_channels=(4, 8),
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=2,
        sample_size=32,
        **more,
    )


def sd(folder: Path, *, lcm: bool = False) -> None:
    """Stable Diffusion 1.x, or its latent consistency model."""
    tokenizer, text = _clip(folder)
    unet = d.UNet2DConditionModel(
        **BLOCKS, cross_attention_dim=32, time_cond_proj_dim=8 if lcm else None
    )
    scheduler = (d.LCMScheduler if lcm else d.DDIMScheduler)(
        **BETAS,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipeline = d.LatentConsistencyModelPipeline if lcm else d.StableDiffusionPipeline
    pipeline(
        unet=unet,
        scheduler=scheduler,
        vae=_vae(),
        text_encoder=text,
        tokenizer=tokenizer,
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def sdxl(folder: Path) -> None:
    tokenizer, text = _clip(folder, projection_dim=32)
    _, second = _clip(folder, "CLIPTextModelWithProjection", projection_dim=32)
    unet = d.UNet2DConditionModel(
        **BLOCKS,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=6 * 8 + 32,
        cross_attention_dim=64,
    )
    scheduler = d.EulerDiscreteScheduler(
        **BETAS, steps_offset=1, beta_schedule="scaled_linear", timestep_spacing="leading"
    )
    d.StableDiffusionXLPipeline(
        unet=unet,
        scheduler=scheduler,
        vae=_vae(),
        text_encoder=text,
        tokenizer=tokenizer,
        text_encoder_2=second,
        tokenizer_2=tokenizer,
        image_encoder=None,
        feature_extractor=None,
    ).save_pretrained(folder)


def sd3(folder: Path) -> None:
    tokenizer, text = _clip(folder, "CLIPTextModelWithProjection", projection_dim=32)
    _, second = _clip(folder, "CLIPTextModelWithProjection", projection_dim=32)
    tokenizer_3, third = _t5(folder)
    transformer = d.SD3Transformer2DModel(
        sample_size=16,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=64,
        out_channels=4,
    )
    d.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=d.FlowMatchEulerDiscreteScheduler(),
        vae=_vae(flow=True),
        text_encoder=text,
        tokenizer=tokenizer,
        text_encoder_2=second,
        tokenizer_2=tokenizer,
        text_encoder_3=third,
        tokenizer_3=tokenizer_3,
    ).save_pretrained(folder)


def flux(folder: Path) -> None:
    tokenizer, text = _clip(folder, projection_dim=32)
    tokenizer_2, second = _t5(folder)
    transformer = d.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=[4, 4, 8],
        guidance_embeds=True,
    )
    d.FluxPipeline(
        transformer=transformer,
        scheduler=d.FlowMatchEulerDiscreteScheduler(),
        vae=_vae(flow=True),
        text_encoder=text,
        tokenizer=tokenizer,
        text_encoder_2=second,
        tokenizer_2=tokenizer_2,
    ).save_pretrained(folder)


def pixart(folder: Path) -> None:
    tokenizer, text = _t5(folder)
    transformer = d.PixArtTransformer2DModel(
        sample_size=16,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_channels=32,
        in_channels=4,
        cross_attention_dim=32,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        use_additional_conditions=False,
    )
    d.PixArtSigmaPipeline(
        transformer=transformer,
        scheduler=d.DDIMScheduler(),
        vae=_vae(),
        text_encoder=text,
        tokenizer=tokenizer,
    ).save_pretrained(folder)


FAMILIES: dict[str, Callable[[Path], None]] = {
    "sd": sd,
    "lcm": lambda folder: sd(folder, lcm=True),
    "sdxl": sdxl,
    "sd3": sd3,
    "flux": flux,
    "pixart": pixart,
}


def make(name: str, folder: Path) -> Path:
    """The folder of a family, the same whenever it is made."""
    torch.manual_seed(0)
    FAMILIES[name](folder)
    return folder
