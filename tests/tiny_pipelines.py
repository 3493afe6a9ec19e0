"""Pipelines of all kinds, tiny and untrained, of the classes that real ones are made of."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from d4m.generators.fit import seeded
from d4m.generators.kinds import find_kind
from d4m.generators.vocabulary import build_tokenizer

LATENT = (4, 4, 4)
IMAGE = (8, 8, 3)
LABELS = {"0": "crane", "1": "kite, paper kite", "2": "hen", "3": "crane", "4": "drake"}
WIDTH = 16
_SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_TOKENS = 12


def build_pipeline(kind: str, **more: Any) -> Any:
    """A pipeline of a kind, in evaluation mode; more arguments go to its VAE."""
    pipeline = seeded(7, lambda: _BUILDERS[kind](**more))
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_pipeline(kind: str, folder: Path, **more: Any) -> Path:
    """The same, saved by diffusers in its own layout."""
    build_pipeline(kind, **more).save_pretrained(folder)
    if kind == "dit":
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps(index | {"id2label": LABELS}))
    return folder


def image_to_image(kind: str, **more: Any) -> Any:
    """Its parts as our own code puts them together: what makes images of prototypes."""
    stock = build_pipeline(kind, **more)
    pipeline = find_kind(type(stock).__name__, kind).pipeline()
    options = {
        "sd": {"requires_safety_checker": False},
        "sdxl": {"add_watermarker": False},
        "dit": {"id2label": LABELS},
    }
    made = pipeline(**stock.components, **options[kind])
    made.set_progress_bar_config(disable=True)
    return made


def _vae(**more: Any) -> AutoencoderKL:
    return AutoencoderKL(
        **{
            "in_channels": 3,
            "out_channels": 3,
            "latent_channels": 4,
            "sample_size": 8,
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "scaling_factor": 0.7,
        }
        | more
    )


def _text_config(tokenizer: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=32,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _tokenizer() -> Any:
    return build_tokenizer(["crane kite hen a photo of"], max_length=_TOKENS)


def _unet(**more: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=4,
        **more,
    )


def _stable_diffusion(**vae: Any) -> StableDiffusionPipeline:
    tokenizer = _tokenizer()
    return StableDiffusionPipeline(
        vae=_vae(**vae),
        text_encoder=CLIPTextModel(_text_config(tokenizer)),
        tokenizer=tokenizer,
        unet=_unet(cross_attention_dim=WIDTH),
        scheduler=PNDMScheduler(**_SCHEDULE, skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _stable_diffusion_xl(**vae: Any) -> StableDiffusionXLPipeline:
    tokenizer = _tokenizer()
    return StableDiffusionXLPipeline(
        vae=_vae(**vae),
        text_encoder=CLIPTextModel(_text_config(tokenizer)),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokenizer)),
        tokenizer=tokenizer,
        tokenizer_2=_tokenizer(),
        unet=_unet(
            cross_attention_dim=2 * WIDTH,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        ),
        scheduler=EulerDiscreteScheduler(**_SCHEDULE, timestep_spacing="leading", steps_offset=1),
        add_watermarker=False,
    )


def _dit(*, classes: int = 5, **vae: Any) -> DiTPipeline:
    return DiTPipeline(
        transformer=DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            sample_size=4,
            patch_size=2,
            num_embeds_ada_norm=classes,
            norm_num_groups=4,
        ),
        vae=_vae(**vae),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=0),
    )


_BUILDERS = {"sd": _stable_diffusion, "sdxl": _stable_diffusion_xl, "dit": _dit}
