"""Stable Diffusion pipelines of any size with random weights: good for speed, not for pictures."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from d4m.generators.vocabulary import build_tokenizer

WORDS = ["a photo of a tench", "a photo of a crane", "cartoon, anime, painting"]
SIZES = {
    "tiny": {"vae": (8, 16), "unet": (8, 16), "text": 16, "layers": 1},
    "small": {"vae": (32, 64, 64), "unet": (32, 64), "text": 64, "layers": 1},
    "sd15": {
        "vae": (128, 256, 512, 512),
        "unet": (320, 640, 1280, 1280),
        "text": 768,
        "layers": 2,
    },
}


def build_pipeline(size: str, image_px: int) -> StableDiffusionImg2ImgPipeline:
    """Build a text-to-image pipeline: `tiny`, `small` or `sd15` (Stable Diffusion 1.5's size)."""
    torch.manual_seed(0)
    chosen = SIZES[size]
    tokenizer = build_tokenizer(WORDS, max_length=77)
    return StableDiffusionImg2ImgPipeline(
        vae=build_autoencoder(chosen, image_px),
        text_encoder=_text_encoder(chosen, len(tokenizer), tokenizer),
        tokenizer=tokenizer,
        unet=build_denoiser(chosen, image_px),
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save_pipeline(folder: Path, size: str, image_px: int) -> None:
    """Save such a pipeline in diffusers' layout."""
    build_pipeline(size, image_px).save_pretrained(folder)


def build_autoencoder(chosen: dict, image_px: int) -> AutoencoderKL:
    """Return a VAE of one of `SIZES`, with random weights."""
    levels = len(chosen["vae"])
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=chosen["vae"],
        layers_per_block=chosen["layers"],
        norm_num_groups=8 if chosen["layers"] == 1 else 32,
        sample_size=image_px,
    )


def build_denoiser(chosen: dict, image_px: int) -> UNet2DConditionModel:
    """Return a U-Net of one of `SIZES`, with random weights."""
    levels = len(chosen["unet"])
    return UNet2DConditionModel(
        sample_size=image_px // 2 ** (len(chosen["vae"]) - 1),
        down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
        block_out_channels=chosen["unet"],
        layers_per_block=chosen["layers"],
        cross_attention_dim=chosen["text"],
        attention_head_dim=8,
        norm_num_groups=8 if chosen["layers"] == 1 else 32,
    )


def _text_encoder(chosen: dict, words: int, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    full = chosen["text"] == 768
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408 if full else words,
            hidden_size=chosen["text"],
            intermediate_size=4 * chosen["text"],
            projection_dim=chosen["text"],
            num_hidden_layers=12 if full else 2,
            num_attention_heads=12 if full else 4,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
