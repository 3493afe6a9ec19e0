"""The latent diffusion model: a compact one that is trained here, or a pretrained one."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from d4m.settings.optimizer import Precision
from d4m.settings.section import Section, Share

Width = Annotated[int, Field(ge=8, multiple_of=8)]


class AutoencoderSettings(Section):
    """The compact VAE and its training. The defaults were tuned on digits of 8 px."""

    channels: tuple[Width, ...] = Field(
        default=(24, 48),
        min_length=1,
        description="Channels of each level. Every level but the first halves the size.",
    )
    layers_per_block: int = Field(default=1, ge=1, le=4, description="Residual blocks per level.")
    steps: int = Field(default=400, ge=1, description="Optimiser steps.")
    batch_size: int = Field(default=64, ge=1, description="Images per step.")
    learning_rate: float = Field(default=2e-3, gt=0, description="Peak learning rate of AdamW.")
    l1_weight: float = Field(default=0.1, ge=0, description="Weight of the absolute error.")
    kl_weight: float = Field(
        default=1e-3, ge=0, description="Weight of the KL divergence to N(0, 1)."
    )
    precision: Precision = Field(
        default="float32",
        exclude_if=lambda value: value == "float32",
        description=(
            "Number format of convolutions and matrix products in the training. Weights stay "
            "float32, and so does the work of the trained network."
        ),
    )


class DenoiserSettings(Section):
    """The compact U-Net with its text encoder, and their training; defaults tuned on digits."""

    channels: tuple[Width, ...] = Field(
        default=(48, 64),
        min_length=1,
        description="Channels of each level. Every level but the first halves the size.",
    )
    layers_per_block: int = Field(default=1, ge=1, le=4, description="Residual blocks per level.")
    attention_from: int = Field(
        default=1,
        ge=0,
        description="First level, from 0, that attends to the text. The middle block always does.",
    )
    text_width: int = Field(
        default=64, ge=16, multiple_of=8, description="Width of the text embedding."
    )
    text_layers: int = Field(
        default=2, ge=1, le=12, description="Transformer layers of the text encoder."
    )
    text_length: int = Field(
        default=77,
        ge=8,
        le=77,
        description=(
            "Tokens per prompt, both markers included; an English word has one or two. Prompts "
            "are cut after them; a prompt that is cut before its class name is refused."
        ),
    )
    captions: tuple[str, ...] = Field(
        default=(
            "{name}",
            "a {name}",
            "a photo of {name}",
            "a photo of the {name}",
            "an image of the {name}",
        ),
        min_length=1,
        description=(
            "Captions for training; {name} is the class's name. They belong to the "
            "generator: a changed prompt of the recipe does not retrain it."
        ),
    )
    made_up_words: Share = Field(
        default=0.5, description="Share of captions that carry made-up words among their own."
    )
    prompt_dropout: Share = Field(
        default=0.12, description="Share of the latents that are trained without a prompt."
    )
    steps: int = Field(default=700, ge=1, description="Optimiser steps.")
    batch_size: int = Field(default=64, ge=1, description="Latents per step.")
    learning_rate: float = Field(default=2e-3, gt=0, description="Peak learning rate of AdamW.")
    ema_decay: float = Field(
        default=0.995,
        ge=0,
        lt=1,
        description="Decay of the moving average of the weights. Only the average is stored.",
    )
    rsm_weight: float = Field(
        default=0.0,
        ge=0,
        le=10,
        exclude_if=lambda value: value == 0,
        description=(
            "Weight of an L1 penalty on the predicted clean latents (RSM), which favours what the "
            "images of a class have in common. At 0 there is none."
        ),
    )

    @field_validator("captions")
    @classmethod
    def _captions_name_the_class(cls, captions: tuple[str, ...]) -> tuple[str, ...]:
        if not any("{name}" in caption for caption in captions):
            msg = "at least one caption must contain {name}"
            raise ValueError(msg)
        return captions


class CompactSettings(Section):
    """A small latent diffusion model trained on the recipe's own training images."""

    autoencoder: AutoencoderSettings = Field(
        default_factory=AutoencoderSettings, description="The VAE."
    )
    denoiser: DenoiserSettings = Field(
        default_factory=DenoiserSettings, description="The U-Net and its text encoder."
    )


class PretrainedSettings(Section):
    """A pretrained latent diffusion pipeline: Stable Diffusion 1.x to 3, FLUX, PixArt or a DiT."""

    model: str = Field(
        min_length=1,
        description=(
            "Hub id, folder in diffusers' layout, or one .safetensors file. Paths are "
            "relative to the recipe file. A single file's configurations are in a folder "
            "next to it with the file's name, or come from the hub."
        ),
    )
    revision: str | None = Field(default=None, description="Commit, tag or branch of the hub id.")
    precision: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto",
        description="Number format of the weights. `auto`: float16 on a GPU, float32 elsewhere.",
    )


class FinetuneSettings(Section):
    """The training of a pretrained denoiser on the recipe's images, by low-rank adapters (LoRA).

    The VAE stays as it is, so latents do too. Images are trained under the prompts of their classes
    in section `prompts`. Needs `pip install 'd4m[lora]'`.
    """

    steps: int = Field(default=1000, ge=1, description="Optimiser steps.")
    rank: int = Field(
        default=8,
        ge=1,
        le=512,
        description="Rank of the change of each attention layer. A higher one can learn more.",
    )
    learning_rate: float = Field(default=1e-4, gt=0, description="Peak learning rate of AdamW.")
    batch_size: int = Field(default=8, ge=1, description="Latents per step.")
    prompt_dropout: Share = Field(
        default=0.1,
        description=(
            "Share of the latents that are trained without a prompt, which keeps "
            "classifier-free guidance in step."
        ),
    )


class GeneratorSettings(Section):
    """The latent diffusion model: a compact one trained here, unless `pretrained` names another."""

    compact: CompactSettings = Field(
        default_factory=CompactSettings,
        description="A small generator, trained on the recipe's images.",
    )
    pretrained: PretrainedSettings | None = Field(
        default=None, description="A pretrained generator, in place of the compact one."
    )
    finetune: FinetuneSettings | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description=(
            "Train the pretrained denoiser on the recipe's images. With `null`, it is used as it "
            "is."
        ),
    )
    latents: Literal["mean", "sample"] = Field(
        default="mean",
        description=(
            "`mean`: the encoder's mean. `sample`: one draw from its posterior, as the paper does."
        ),
    )

    @property
    def kind(self) -> Literal["compact", "pretrained"]:
        """The key that names the generator in use."""
        return "compact" if self.pretrained is None else "pretrained"

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.pretrained is not None and "compact" in self.model_fields_set:
            msg = "give `compact` or `pretrained`, not both"
            raise ValueError(msg)
        if self.finetune is not None and self.pretrained is None:
            msg = (
                "`finetune` is for a pretrained generator, and the compact one is trained on the "
                "recipe's images anyway; name one in `pretrained`, or leave `finetune` out"
            )
            raise ValueError(msg)
        return self
