"""The kinds of pretrained pipelines, by the class that diffusers names in `model_index.json`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from d4m.errors import GeneratorError


@dataclass(frozen=True)
class TextSide:
    """How a pipeline encodes prompts.

    Attributes:
        tokens: folder of a tokenizer -> the most tokens that its encoder reads, markers included.
        embeddings: arguments of the pipeline's call -> their place in what `encode_prompt` returns.
        options: further arguments of `encode_prompt`.
    """

    tokens: Mapping[str, int]
    embeddings: Mapping[str, int]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """A family of pipelines with the same parts.

    Attributes:
        name: how messages call it.
        folders: per component, its folders in diffusers' layout.
        pipeline: loads and returns the class that makes images of prototypes.
        text: how prompts are encoded; None: images are conditioned on classes.
        options: entries of `model_index.json` that change images; they belong to the denoiser.
        arguments: what `from_pretrained` of the pipeline is given, such as no safety checker.
        upcasts_vae: whether the stock pipelines run a VAE with `force_upcast` in float32 where
            the rest runs in float16.
        flow: whether the denoiser is trained by flow matching, along straight lines to the noise.
        takes_guidance: whether the guidance scale is an input of the denoiser, which is then never
            evaluated under a negative prompt.
        sizes: the images it takes: of any size, of sizes that its patches divide, or of one size.
        packing: latent values that are one channel of the denoiser's input.
        single_file: whether it may come as one `.safetensors` file.
    """

    name: str
    folders: Mapping[str, tuple[str, ...]]
    pipeline: Callable[[], Any]
    text: TextSide | None
    options: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    upcasts_vae: bool = False
    flow: bool = False
    takes_guidance: bool = False
    sizes: Literal["any", "patches", "trained"] = "any"
    packing: int = 1
    single_file: bool = False

    @property
    def reads_negative(self) -> bool:
        """Whether guidance is away from a negative prompt."""
        return self.text is not None and not self.takes_guidance

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


def kind_of(pipeline: object) -> Kind | None:
    """Return the kind of a loaded pipeline; None: it is of no class that diffusers knows."""
    names = [each.__name__ for each in type(pipeline).__mro__]
    return next((KINDS[name] for name in names if name in KINDS), None)


def find_denoiser(pipeline: Any) -> Any:
    """Return the network that predicts noise: the transformer where there is one, or the U-Net."""
    return pipeline.transformer if hasattr(pipeline, "transformer") else pipeline.unet


def _stable_diffusion() -> Any:
    from diffusers import StableDiffusionImg2ImgPipeline

    return StableDiffusionImg2ImgPipeline


def _stable_diffusion_xl() -> Any:
    from diffusers import StableDiffusionXLImg2ImgPipeline

    return StableDiffusionXLImg2ImgPipeline


def _stable_diffusion_3() -> Any:
    from d4m.generators.flow import StableDiffusion3FromLatents

    return StableDiffusion3FromLatents


def _flux() -> Any:
    from d4m.generators.flow import FluxFromLatents

    return FluxFromLatents


def _dit() -> Any:
    from d4m.generators.dit import DiTImg2ImgPipeline

    return DiTImg2ImgPipeline


def _pixart_alpha() -> Any:
    from d4m.generators.pixart import PixArtAlphaImg2ImgPipeline

    return PixArtAlphaImg2ImgPipeline


def _pixart_sigma() -> Any:
    from d4m.generators.pixart import PixArtSigmaImg2ImgPipeline

    return PixArtSigmaImg2ImgPipeline


_CLIP = 77
_UNGUIDED = {"do_classifier_free_guidance": False}  # the negative prompt is encoded once, alone


def _folders(denoiser: str, *text: str) -> Mapping[str, tuple[str, ...]]:
    return {
        "vae": ("vae",),
        **({"text_encoder": text} if text else {}),
        "denoiser": (denoiser,),
        "scheduler": ("scheduler",),
    }


_SD = Kind(
    name="Stable Diffusion",
    folders=_folders("unet", "text_encoder", "tokenizer"),
    pipeline=_stable_diffusion,
    text=TextSide({"tokenizer": _CLIP}, {"prompt_embeds": 0}, _UNGUIDED),
    arguments={
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    },
    single_file=True,
)
_SDXL = Kind(
    name="Stable Diffusion XL",
    folders=_folders("unet", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
    pipeline=_stable_diffusion_xl,
    text=TextSide(
        {"tokenizer": _CLIP, "tokenizer_2": _CLIP},
        {"prompt_embeds": 0, "pooled_prompt_embeds": 2},
        _UNGUIDED,
    ),
    options=("force_zeros_for_empty_prompt", "requires_aesthetics_score"),
    arguments={"add_watermarker": False},
    upcasts_vae=True,
    single_file=True,
)
_SD3 = Kind(
    name="Stable Diffusion 3",
    folders=_folders(
        "transformer",
        *("text_encoder", "text_encoder_2", "text_encoder_3"),
        *("tokenizer", "tokenizer_2", "tokenizer_3"),
    ),
    pipeline=_stable_diffusion_3,
    text=TextSide(
        {"tokenizer": _CLIP, "tokenizer_2": _CLIP, "tokenizer_3": 256},
        {"prompt_embeds": 0, "pooled_prompt_embeds": 2},
        {**_UNGUIDED, "prompt_2": None, "prompt_3": None},
    ),
    flow=True,
    sizes="patches",
)
_FLUX = Kind(
    name="FLUX",
    folders=_folders("transformer", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
    pipeline=_flux,
    # CLIP gives FLUX one vector only, so a prompt that CLIP cuts is still read by T5.
    text=TextSide(
        {"tokenizer_2": 512},
        {"prompt_embeds": 0, "pooled_prompt_embeds": 1},
        {"prompt_2": None},
    ),
    flow=True,
    takes_guidance=True,
    sizes="patches",
    packing=4,
)
_DIT = Kind(
    name="DiT",
    folders=_folders("transformer"),
    pipeline=_dit,
    text=None,
    options=("id2label",),
    sizes="trained",
    single_file=True,
)


def _pixart(name: str, pipeline: Callable[[], Any], tokens: int) -> Kind:
    return Kind(
        name=name,
        folders=_folders("transformer", "text_encoder", "tokenizer"),
        pipeline=pipeline,
        text=TextSide(
            {"tokenizer": tokens},
            {"prompt_embeds": 0, "prompt_attention_mask": 1},
            {**_UNGUIDED, "clean_caption": False},
        ),
        sizes="trained",
    )


_PIXART_ALPHA = _pixart("PixArt-alpha", _pixart_alpha, 120)
_PIXART_SIGMA = _pixart("PixArt-Sigma", _pixart_sigma, 300)
KINDS: dict[str, Kind] = {
    "StableDiffusionPipeline": _SD,
    "StableDiffusionImg2ImgPipeline": _SD,
    "StableDiffusionXLPipeline": _SDXL,
    "StableDiffusionXLImg2ImgPipeline": _SDXL,
    "StableDiffusion3Pipeline": _SD3,
    "StableDiffusion3Img2ImgPipeline": _SD3,
    "FluxPipeline": _FLUX,
    "FluxImg2ImgPipeline": _FLUX,
    "DiTPipeline": _DIT,
    "PixArtAlphaPipeline": _PIXART_ALPHA,
    "PixArtSigmaPipeline": _PIXART_SIGMA,
}
"""`_class_name` of `model_index.json` -> kind."""
