"""Take in a compact generator that was trained elsewhere, after examining it.

It is read as parts of a diffusers pipeline folder: `vae/`, `unet/`, `text_encoder/`, `tokenizer/`.
What is stored is built from the recipe and takes the weights alone, so it has the files and bytes
of one that was trained here.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from d4m.errors import GeneratorError
from d4m.generators.base import Writer
from d4m.generators.compact_model import (
    build_autoencoder,
    build_denoiser,
    latent_spread,
    save,
)
from d4m.generators.subwords import caption_texts
from d4m.generators.vocabulary import build_tokenizer, tokenize
from d4m.settings import AutoencoderSettings, DenoiserSettings

_MOST_SPREAD = 1.5
_STOCK_SCALE = 0.18215
_BATCH = 64


def take_in_vae(
    settings: Mapping[str, Any], folder: Path, pixels: Float[Tensor, "image channel height width"]
) -> Writer:
    """Return what writes the autoencoder of a pipeline folder as the recipe's own.

    Args:
        settings: of the component.
        folder: of the pipeline.
        pixels: some of the recipe's images.

    Raises:
        GeneratorError: it is another network, or its `scaling_factor` does not suit these images.
    """
    own = AutoencoderSettings.among(settings)
    vae = build_autoencoder(pixels.shape[1], pixels.shape[-1], own)
    _take_weights(vae, folder / "vae")
    vae.eval().requires_grad_(False)
    scale = _read_scale(folder / "vae")
    spread = latent_spread(vae, pixels, _BATCH) * scale
    if not 1 / _MOST_SPREAD < spread < _MOST_SPREAD:
        msg = (
            f"{folder / 'vae'}: its `scaling_factor` of {scale} gives the latents of {len(pixels)} "
            f"of the recipe's images a deviation of {spread:.2f}, wanted about 1 (up to "
            f"{_MOST_SPREAD} times more or less); it was trained on other images, or scaled "
            f"otherwise"
        )
        raise GeneratorError(msg)
    vae.register_to_config(scaling_factor=scale)
    return save({"vae": vae})


def take_in_denoiser(
    settings: Mapping[str, Any], folder: Path, class_names: Sequence[str], *, latent_size: int
) -> Writer:
    """Return what writes the denoiser of a pipeline folder, and its text side, as the recipe's own.

    Args:
        settings: of the component.
        folder: of the pipeline.
        class_names: in the order of the class ids.
        latent_size: height and width of the recipe's latents.

    Raises:
        GeneratorError: these are other networks, or another vocabulary.
    """
    own = DenoiserSettings.among(settings)
    tokenizer = build_tokenizer(caption_texts(class_names, own), max_length=own.text_length)
    tokenize(tokenizer, [""])  # after this its file holds padding and cutting, as after a training
    theirs = _load_tokenizer(folder / "tokenizer")
    if theirs.get_vocab() != tokenizer.get_vocab():
        new = sorted(tokenizer.get_vocab().keys() - theirs.get_vocab().keys())
        named = f", such as {new[0]!r}" if new else ""
        msg = (
            f"{folder / 'tokenizer'}: wanted the {len(tokenizer)} tokens of the recipe's captions "
            f"and class names, found {len(theirs)} and {len(new)} of the recipe's missing{named}; "
            f"its denoiser was trained with other class names or captions"
        )
        raise GeneratorError(msg)
    unet, text_encoder = build_denoiser(latent_size, tokenizer, own)
    _take_weights(unet, folder / "unet")
    _take_weights(text_encoder, folder / "text_encoder")
    parts = nn.ModuleList([unet, text_encoder]).eval().requires_grad_(False)
    return save({"unet": parts[0], "text_encoder": parts[1], "tokenizer": tokenizer})


def _take_weights(network: nn.Module, folder: Path) -> None:
    """Give a network the weights in a folder.

    Raises:
        GeneratorError: there are none, they are those of another network, or not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        msg = f"{folder}: wanted one .safetensors file of weights, found {len(files)}"
        raise GeneratorError(msg)
    try:
        weights = load_file(files[0])
        network.load_state_dict(weights, strict=True)
    except (RuntimeError, SafetensorError, OSError) as failure:
        msg = (
            f"{files[0]} does not hold the weights of the network that the recipe describes "
            f"under `generator.compact`: {failure}"
        )
        raise GeneratorError(msg) from failure
    wrong = [n for n, t in weights.items() if t.is_floating_point() and not t.isfinite().all()]
    if wrong:
        msg = f"{files[0]}: {len(wrong)} tensors are not finite, such as {wrong[0]}"
        raise GeneratorError(msg)


def _read_scale(folder: Path) -> float:
    """Return the `scaling_factor` of an autoencoder; diffusers leaves out its own default."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return float(config.get("scaling_factor", _STOCK_SCALE))
    except (OSError, ValueError, TypeError, AttributeError) as failure:
        msg = f"{folder}: wanted a config.json with a `scaling_factor`, found none: {failure}"
        raise GeneratorError(msg) from failure


def _load_tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(folder)
    except Exception as failure:  # tokenizers raises nothing more exact
        msg = f"{folder}: wanted the tokenizer of a compact generator, found none: {failure}"
        raise GeneratorError(msg) from failure
