"""The latent diffusion model: a compact one trained on the spot, or an existing one."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from d4m.settings.section import Section, Share

Width = Annotated[int, Field(ge=8, multiple_of=8)]


class AutoencoderSettings(Section):
    """The compact VAE and its training. Defaults tuned on 8 px digits."""

    channels: tuple[Width, ...] = Field(
        default=(24, 48), min_length=1, description="Width per level; each further level halves."
    )
    layers_per_block: int = Field(default=1, ge=1, le=4, description="Residual blocks a level.")
    steps: int = Field(default=400, ge=1, description="Optimiser steps.")
    batch_size: int = Field(default=64, ge=1, description="Images a step.")
    learning_rate: float = Field(default=2e-3, gt=0, description="Peak rate of AdamW.")
    l1_weight: float = Field(default=0.1, ge=0, description="Weight of the absolute error.")
    kl_weight: float = Field(default=1e-3, ge=0, description="Weight of the KL term to N(0, 1).")


class DenoiserSettings(Section):
    """The compact U-Net with its text encoder, and their training. Defaults tuned on digits."""

    channels: tuple[Width, ...] = Field(
        default=(48, 64), min_length=1, description="Width per level; each further level halves."
    )
    layers_per_block: int = Field(default=1, ge=1, le=4, description="Residual blocks a level.")
    attention_from: int = Field(
        default=1, ge=0, description="First level that attends to the text; the middle always does."
    )
    text_width: int = Field(default=64, ge=16, multiple_of=8, description="Text embedding width.")
    text_layers: int = Field(default=2, ge=1, le=12, description="Transformer layers of the text.")
    text_length: int = Field(
        default=32, ge=8, le=77, description="Tokens per prompt; longer prompts are cut."
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
        description="Training captions; {name} is the class's name. They are the generator's own: "
        "changing a prompt of the recipe does not train it anew.",
    )
    made_up_words: Share = Field(
        default=0.5, description="Share of captions with made-up words among the real ones."
    )
    prompt_dropout: Share = Field(default=0.12, description="Share trained without a prompt.")
    steps: int = Field(default=700, ge=1, description="Optimiser steps.")
    batch_size: int = Field(default=64, ge=1, description="Latents a step.")
    learning_rate: float = Field(default=2e-3, gt=0, description="Peak rate of AdamW.")
    ema_decay: float = Field(default=0.995, ge=0, lt=1, description="Decay of the kept weights.")


class CompactSettings(Section):
    """A small latent diffusion model trained on the recipe's own training images."""

    autoencoder: AutoencoderSettings = Field(
        default_factory=AutoencoderSettings, description="The VAE."
    )
    denoiser: DenoiserSettings = Field(
        default_factory=DenoiserSettings, description="The U-Net and its text encoder."
    )


class PretrainedSettings(Section):
    """An existing latent diffusion pipeline: Stable Diffusion 1.x, 2.x or XL, or a DiT."""

    model: str = Field(
        min_length=1,
        description="Hub id, or relative to the recipe file a folder in diffusers' layout or one "
        ".safetensors file, whose configurations lie in a folder beside it with the file's name.",
    )
    revision: str | None = Field(default=None, description="Commit, tag or branch of the hub id.")
    precision: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto",
        description="Number format of the weights; auto: float16 on a GPU, float32 elsewhere.",
    )


class GeneratorSettings(Section):
    """The latent diffusion model: a compact one trained here, unless `pretrained` names another."""

    compact: CompactSettings = Field(
        default_factory=CompactSettings, description="A small one, trained on the recipe's images."
    )
    pretrained: PretrainedSettings | None = Field(default=None, description="An existing one.")
    latents: Literal["mean", "sample"] = Field(
        default="mean",
        description="The encoder's mean, or one draw from its posterior as the paper does.",
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
        return self
