"""A small latent diffusion model of the Stable Diffusion family, trained on the recipe's images.

Its parts are stock classes, laid out as in a Stable Diffusion pipeline folder: `AutoencoderKL`,
`UNet2DConditionModel`, and a `CLIPTextModel` with a `CLIPTokenizer` of its own.
"""

# The types that diffusers and transformers declare are wrong in places:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    UNet2DConditionModel,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from d4m.compute import computing_in
from d4m.errors import GeneratorError
from d4m.generators.fit import Fit, seeded
from d4m.generators.rsm import sparsity_loss
from d4m.generators.subwords import caption_texts
from d4m.generators.vocabulary import build_tokenizer, draw_captions, tokenize
from d4m.images.spool import Spool, ranges
from d4m.settings import AutoencoderSettings, DenoiserSettings
from d4m.store.checkpoints import NOWHERE, Checkpoint

_LATENT_CHANNELS = 4  # by which the stock img2img pipelines tell latents from images
_HEADS = 4
_NORM_GROUPS = 8


@dataclass(frozen=True)
class CompactDenoiser:
    """A trained denoiser and its text side; averaged weights, evaluation mode."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer


def train_autoencoder(
    pixels: Float[Tensor, "image channel height width"] | Spool,
    settings: AutoencoderSettings,
    *,
    seed: int,
    checkpoint: Checkpoint = NOWHERE,
) -> AutoencoderKL:
    """Train an autoencoder on images; its `scaling_factor` scales latents to a deviation of 1.

    Args:
        pixels: training images, on the device to train on.
        settings: widths and training.
        seed: the stream of initial weights, batches and sampled latents.
        checkpoint: where the training is saved.

    Raises:
        GeneratorError: the image size does not divide by the downsampling.

    Source:
        Rombach et al., "High-resolution image synthesis with latent diffusion models" (CVPR 2022),
        section 3.1; checked against `AutoencoderKL`'s own encode and decode.

    Differs:
        No adversarial and no perceptual loss: squared and absolute error with a small KL term.
    """
    halvings = 2 ** (len(settings.channels) - 1)
    if pixels.shape[-1] % halvings:
        msg = (
            f"`generator.compact.autoencoder.channels` has {len(settings.channels)} levels, which "
            f"needs an image size that divides by {halvings}; found {pixels.shape[-1]} px"
        )
        raise GeneratorError(msg)
    generator = torch.Generator(pixels.device).manual_seed(seed)
    vae = seeded(seed, lambda: build_autoencoder(pixels.shape[1], pixels.shape[-1], settings))
    vae = vae.to(pixels.device).train()
    fit = Fit(vae, settings, generator, checkpoint=checkpoint)
    for rows in fit.batches(len(pixels), "autoencoder"):
        batch = pixels[rows]
        with computing_in(settings.precision, batch.device):
            moments = vae.encode(batch).latent_dist.parameters.float()
            posterior = DiagonalGaussianDistribution(moments)
            decoded = vae.decode(posterior.sample(generator)).sample
        error = decoded.float() - batch
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = error.square().mean() + settings.l1_weight * error.abs().mean()
        fit.step(loss + settings.kl_weight * kl)
    vae.eval().requires_grad_(False)
    vae.register_to_config(scaling_factor=1.0 / latent_spread(vae, pixels, settings.batch_size))
    return vae


def train_denoiser(
    latents: Float[Tensor, "image 4 height width"] | Spool,
    class_ids: Int64[Tensor, "image"],
    class_names: Sequence[str],
    settings: DenoiserSettings,
    *,
    seed: int,
    checkpoint: Checkpoint = NOWHERE,
) -> CompactDenoiser:
    """Train a text-conditioned denoiser of latents, fit for classifier-free guidance.

    Args:
        latents: scaled latents of the training images, on the device to train on.
        class_ids: class of each latent.
        class_names: what the captions call each class.
        settings: widths, captions and training.
        seed: the stream of initial weights, captions, batches, timesteps and noise.
        checkpoint: where the training is saved.

    Source:
        Rombach et al. 2022, section 3.3; classifier-free guidance: Ho & Salimans 2022; prediction
        of the velocity: Salimans & Ho 2022.
    """
    generator = torch.Generator(latents.device).manual_seed(seed)
    words = torch.Generator().manual_seed(seed)
    texts = caption_texts(class_names, settings)
    tokenizer = build_tokenizer(texts, max_length=settings.text_length)
    drawn = [tokenize(tokenizer, draw_captions(name, settings, words)) for name in class_names]
    captions, empty = torch.stack(drawn).to(latents.device), tokenize(tokenizer, [""])
    parts = seeded(seed, lambda: build_denoiser(latents.shape[-1], tokenizer, settings))
    parts = parts.to(latents.device).train()
    averaged = AveragedModel(parts, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay))
    fit = Fit(parts, settings, generator, checkpoint=checkpoint, also={"averaged": averaged})
    for rows in fit.batches(len(latents), "denoiser"):
        tokens, which = _draw_tokens(
            captions, empty.to(latents.device), class_ids[rows], settings.prompt_dropout, generator
        )
        fit.step(
            _denoising_loss(parts, latents[rows], tokens, which, generator, settings.rsm_weight)
        )
        averaged.update_parameters(parts)
    unet, text_encoder = averaged.module.eval().requires_grad_(False)
    return CompactDenoiser(unet, text_encoder, tokenizer)


def build_scheduler() -> DDIMScheduler:
    """Build Stable Diffusion's noise schedule with velocity prediction, for any sampler."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def save(components: Mapping[str, Any]) -> Callable[[Path], None]:
    """Return a function that writes components, each into its folder of a diffusers pipeline."""

    def write(folder: Path) -> None:
        with _without_loading_bars():
            for name, component in components.items():
                component.save_pretrained(folder / name)

    return write


def load_vae(folder: Path) -> Any:
    """Load the autoencoder of a stored component."""
    return AutoencoderKL.from_pretrained(folder / "vae", use_safetensors=True).eval()


def load_pipeline(folders: Sequence[Path]) -> StableDiffusionImg2ImgPipeline:
    """Load the stock img2img pipeline from stored components, wherever each of them is."""
    where = {path.name: path for folder in folders for path in folder.iterdir()}
    with _without_loading_bars():
        text = CLIPTextModel.from_pretrained(where["text_encoder"], use_safetensors=True)
    return StableDiffusionImg2ImgPipeline(
        vae=AutoencoderKL.from_pretrained(where["vae"], use_safetensors=True),
        text_encoder=text,
        tokenizer=CLIPTokenizer.from_pretrained(where["tokenizer"]),
        unet=UNet2DConditionModel.from_pretrained(where["unet"], use_safetensors=True),
        scheduler=DDIMScheduler.from_pretrained(where["scheduler"]),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@contextmanager
def _without_loading_bars() -> Generator[None]:
    """Keep transformers from drawing a bar for every file of a few milliseconds."""
    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()


def build_autoencoder(channels: int, size_px: int, settings: AutoencoderSettings) -> AutoencoderKL:
    """Build the autoencoder with random weights, before its `scaling_factor` is known."""
    levels = len(settings.channels)
    return AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        latent_channels=_LATENT_CHANNELS,
        sample_size=size_px,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=settings.channels,
        layers_per_block=settings.layers_per_block,
        norm_num_groups=_NORM_GROUPS,
        mid_block_add_attention=False,
    )


def latent_spread(vae: AutoencoderKL, pixels: Tensor | Spool, batch_size: int) -> float:
    """Return the standard deviation of all latents, from sums over batches."""
    count, total, squares = 0, 0.0, 0.0
    with torch.inference_mode():
        for rows in ranges(len(pixels), batch_size):
            means = vae.encode(pixels[rows]).latent_dist.mean.double()
            count += means.numel()
            total += float(means.sum())
            squares += float(means.square().sum())
    variance = (squares - total**2 / count) / (count - 1)
    return float(torch.tensor(variance, dtype=torch.float64).sqrt().float())


def build_denoiser(
    latent_size: int, tokenizer: CLIPTokenizer, settings: DenoiserSettings
) -> nn.ModuleList:
    """Build the U-Net and the text encoder with random weights."""
    attends = [level >= settings.attention_from for level in range(len(settings.channels))]
    unet = UNet2DConditionModel(
        sample_size=latent_size,
        in_channels=_LATENT_CHANNELS,
        out_channels=_LATENT_CHANNELS,
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]),
        block_out_channels=settings.channels,
        layers_per_block=settings.layers_per_block,
        attention_head_dim=_HEADS,  # which diffusers reads as the number of heads
        cross_attention_dim=settings.text_width,
        norm_num_groups=_NORM_GROUPS,
        use_linear_projection=True,
    )
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.text_width,
        intermediate_size=4 * settings.text_width,
        projection_dim=settings.text_width,
        num_hidden_layers=settings.text_layers,
        num_attention_heads=_HEADS,
        max_position_embeddings=settings.text_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return nn.ModuleList([unet, CLIPTextModel(text)])


def _draw_tokens(
    captions: Tensor, empty: Tensor, class_ids: Tensor, dropout: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw a caption per class of the batch, then the empty one; say which one each latent gets."""
    present, which = class_ids.unique(return_inverse=True)
    device = captions.device
    drawn = torch.randint(captions.shape[1], present.shape, generator=generator, device=device)
    dropped = torch.rand(class_ids.shape, generator=generator, device=device) < dropout
    return torch.cat([captions[present, drawn], empty]), which.masked_fill(dropped, len(present))


def _denoising_loss(
    parts: nn.ModuleList,
    clean: Tensor,
    tokens: Tensor,
    which: Tensor,
    generator: torch.Generator,
    rsm_weight: float,
) -> Tensor:
    unet, text_encoder = parts
    scheduler = build_scheduler()
    noise = torch.randn(clean.shape, generator=generator, device=clean.device)
    timesteps = scheduler.config["num_train_timesteps"]
    steps = torch.randint(timesteps, (len(clean),), generator=generator, device=clean.device)
    noisy = scheduler.add_noise(clean, noise, steps)
    # index_select, as the gradient of plain indexing adds up in any order on several threads
    context = text_encoder(tokens).last_hidden_state.index_select(0, which)
    predicted = unet(noisy, steps, encoder_hidden_states=context, return_dict=False)[0]
    loss = F.mse_loss(predicted, scheduler.get_velocity(clean, noise, steps))
    if not rsm_weight:
        return loss
    signal = scheduler.alphas_cumprod.to(clean.device)[steps]
    return loss + rsm_weight * sparsity_loss(predicted, noisy, signal)
