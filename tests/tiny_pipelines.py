"""Pipelines of all kinds, tiny and untrained, of the classes that real ones are made of."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from d4m.generators.fit import seeded
from d4m.generators.kinds import find_kind
from d4m.generators.vocabulary import build_tokenizer

LATENT = (4, 4, 4)
IMAGE = (8, 8, 3)
LABELS = {"0": "crane", "1": "kite, paper kite", "2": "hen", "3": "crane", "4": "drake"}
WIDTH = 16
_SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_TOKENS = 12
_T5_WIDTH = 32


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
    made = pipeline(**stock.components, **options.get(kind, {}))
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


def _t5() -> tuple[T5EncoderModel, T5Tokenizer]:
    """A T5 that spells in letters and knows a few words as one token each."""
    letters = [(letter, -4.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    words = [(f"▁{word}", -1.0) for word in ["crane", "kite", "hen", "a", "photo", "of"]]
    markers = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    tokenizer = T5Tokenizer(vocab=[*markers, *letters, *words], extra_ids=0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=_T5_WIDTH,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config), tokenizer


def _flow_vae(**more: Any) -> AutoencoderKL:
    """A VAE of 16 latent channels, which are shifted before they are scaled."""
    plain = {"use_quant_conv": False, "use_post_quant_conv": False}
    return _vae(**{"latent_channels": 16, "shift_factor": 0.3, **plain} | more)


def _stable_diffusion_3(*, t5: bool = True, shift: float = 3.0, **vae: Any) -> Any:
    tokenizer, (encoder, reader) = _tokenizer(), _t5()
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=16,  # of larger images than those of the tests, which it takes too
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=_T5_WIDTH,
            caption_projection_dim=16,
            pooled_projection_dim=2 * WIDTH,
            pos_embed_max_size=8,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        vae=_flow_vae(**vae),
        text_encoder=CLIPTextModelWithProjection(_text_config(tokenizer)),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokenizer)),
        text_encoder_3=encoder if t5 else None,
        tokenizer=tokenizer,
        tokenizer_2=_tokenizer(),
        tokenizer_3=reader if t5 else None,
    )


def _flux(*, guidance_embeds: bool = True, **vae: Any) -> FluxPipeline:
    tokenizer, (encoder, reader) = _tokenizer(), _t5()
    return FluxPipeline(
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=_T5_WIDTH,
            pooled_projection_dim=WIDTH,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(4, 4, 8),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=guidance_embeds),
        vae=_flow_vae(**vae),
        text_encoder=CLIPTextModel(_text_config(tokenizer)),
        text_encoder_2=encoder,
        tokenizer=tokenizer,
        tokenizer_2=reader,
    )


def _pixart(made: Any = PixArtAlphaPipeline, *, size: int = 4, patch: int = 2, **vae: Any) -> Any:
    encoder, reader = _t5()
    return made(
        transformer=PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            cross_attention_dim=24,
            sample_size=size,
            patch_size=patch,
            caption_channels=_T5_WIDTH,
            norm_num_groups=4,
        ),
        vae=_vae(**vae),
        text_encoder=encoder,
        tokenizer=reader,
        scheduler=DPMSolverMultistepScheduler(**_SCHEDULE),
    )


_BUILDERS: dict[str, Callable[..., Any]] = {
    "sd": _stable_diffusion,
    "sdxl": _stable_diffusion_xl,
    "dit": _dit,
    "sd3": _stable_diffusion_3,
    "flux": _flux,
    "pixart": _pixart,
    "pixart_sigma": partial(_pixart, PixArtSigmaPipeline),
}
