"""The kinds of pretrained pipelines, by the class that diffusers names in `model_index.json`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from d4m.errors import GeneratorError


@dataclass(frozen=True)
class Kind:
    """A family of pipelines with the same parts.

    Attributes:
        name: how messages call it.
        folders: per component, its folders in diffusers' layout.
        options: entries of `model_index.json` that change images; they belong to the denoiser.
        arguments: what `from_pretrained` of the pipeline is given, such as no safety checker.
        upcasts_vae: whether the stock pipelines run a VAE with `force_upcast` in float32 where
            the rest runs in float16.
        pipeline: loads and returns the class that makes images of prototypes.
    """

    name: str
    folders: Mapping[str, tuple[str, ...]]
    options: tuple[str, ...]
    arguments: Mapping[str, Any]
    upcasts_vae: bool
    pipeline: Callable[[], Any]

    @property
    def weight_folders(self) -> tuple[str, ...]:
        """Folders that hold weights."""
        names = [name for part in self.folders.values() for name in part]
        return tuple(n for n in names if not n.startswith(("scheduler", "tokenizer")))


def find_kind(class_name: object, origin: object) -> Kind:
    """Return the kind of a pipeline.

    Args:
        class_name: `_class_name` of its `model_index.json`.
        origin: the file or hub id that names the class, for the message.

    Raises:
        GeneratorError: pipelines of this class are not supported.
    """
    if class_name not in KINDS:
        msg = (
            f"{origin} is a pipeline of class {class_name}; supported are "
            f"{', '.join(KINDS)}: name one of them in `generator.pretrained.model`"
        )
        raise GeneratorError(msg)
    return KINDS[str(class_name)]


def _stable_diffusion() -> Any:
    from diffusers import StableDiffusionImg2ImgPipeline

    return StableDiffusionImg2ImgPipeline


def _stable_diffusion_xl() -> Any:
    from diffusers import StableDiffusionXLImg2ImgPipeline

    return StableDiffusionXLImg2ImgPipeline


def _dit() -> Any:
    from d4m.generators.dit import DiTImg2ImgPipeline

    return DiTImg2ImgPipeline


_SD = Kind(
    name="Stable Diffusion",
    folders={
        "vae": ("vae",),
        "text_encoder": ("text_encoder", "tokenizer"),
        "denoiser": ("unet",),
        "scheduler": ("scheduler",),
    },
    options=(),
    arguments={
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    },
    upcasts_vae=False,
    pipeline=_stable_diffusion,
)
_SDXL = Kind(
    name="Stable Diffusion XL",
    folders={
        "vae": ("vae",),
        "text_encoder": ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
        "denoiser": ("unet",),
        "scheduler": ("scheduler",),
    },
    options=("force_zeros_for_empty_prompt", "requires_aesthetics_score"),
    arguments={"add_watermarker": False},
    upcasts_vae=True,
    pipeline=_stable_diffusion_xl,
)
_DIT = Kind(
    name="DiT",
    folders={"vae": ("vae",), "denoiser": ("transformer",), "scheduler": ("scheduler",)},
    options=("id2label",),
    arguments={},
    upcasts_vae=False,
    pipeline=_dit,
)
KINDS: dict[str, Kind] = {
    "StableDiffusionPipeline": _SD,
    "StableDiffusionImg2ImgPipeline": _SD,
    "StableDiffusionXLPipeline": _SDXL,
    "StableDiffusionXLImg2ImgPipeline": _SDXL,
    "DiTPipeline": _DIT,
}
"""`_class_name` of `model_index.json` -> kind."""
