"""Look in a pretrained pipeline's configurations for what rules out a recipe's images."""

import importlib.util
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from d4m.errors import GeneratorError
from d4m.generators.base import PromptFinding
from d4m.generators.dit_labels import DiTLabels
from d4m.generators.kinds import Kind, find_kind
from d4m.generators.pretrained_model import describe_origin, local_folder, refuse_single_file
from d4m.generators.prompt_cuts import TextReader, find_cuts
from d4m.generators.synthesis_checks import find_unfollowed
from d4m.generators.weight_files import component_files, read_index
from d4m.recipe.problems import Problem
from d4m.settings import PretrainedSettings, RecipeSynthesisSettings

_MODEL = ("generator", "pretrained", "model")
_SIZE = ("dataset", "size_px")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def find_problems(
    settings: PretrainedSettings, path: Path, *, size_px: int, channels: int
) -> Iterator[Problem]:
    """Yield what is wrong with a pipeline for such images, as far as files on this machine say.

    Args:
        settings: which pipeline.
        path: the file or folder that the settings may mean.
        size_px: height and width of the real images.
        channels: of the real images.
    """
    try:
        describe_origin(settings, path, "cpu")
        found = find_local(settings, path)
    except GeneratorError as failure:
        yield Problem(_MODEL, str(failure))
        return
    if found is None:
        if not path.is_file() and not _is_hub_id(settings.model):
            yield Problem(_MODEL, f"wanted a hub id, or a file or folder; there is none at {path}")
        return
    folder, kind = found
    if path.is_dir():
        yield from _missing_weights(folder, kind)
        yield from _missing_reader(folder, kind)
    elif not kind.single_file and path.is_file():
        yield Problem(_MODEL, refuse_single_file(kind, path))
    yield from _wrong_images(folder, kind, size_px, channels)


def find_unfollowed_here(
    settings: PretrainedSettings, path: Path, synthesis: RecipeSynthesisSettings
) -> Iterator[Problem]:
    """Yield the settings of synthesis that a pipeline on this machine cannot follow."""
    try:
        found = find_local(settings, path)
    except GeneratorError:  # a problem of the model, which `find_problems` reports
        return
    if found is None:
        return
    folder, kind = found
    unfollowed = find_unfollowed(
        kind,
        synthesis,
        scheduler=_config(folder, "scheduler", "scheduler_config.json"),
        denoiser=_config(folder, kind.folders["denoiser"][0]),
    )
    for key, text in unfollowed:
        yield Problem(("synthesis", key) if key else _MODEL, text)


def find_untrainable(settings: PretrainedSettings, path: Path) -> Iterator[Problem]:
    """Yield what keeps a pipeline's denoiser from being fine-tuned here."""
    keys = ("generator", "finetune")
    if importlib.util.find_spec("peft") is None:
        yield Problem(keys, "needs the library peft: pip install 'd4m[lora]'")
    try:
        found = find_local(settings, path)
    except GeneratorError:  # a problem of the model, which `find_problems` reports
        return
    if found and found[1].takes_guidance:
        name = found[1].name
        text = f"is not for {name}, which takes its guidance scale as an input; leave it out"
        yield Problem(keys, text)


def examine_prompts(
    settings: PretrainedSettings, path: Path, prompts: Iterable[str]
) -> dict[str, PromptFinding]:
    """Return the prompts that the pipeline does not read whole; none if it is not here yet."""
    try:
        found = find_local(settings, path)
    except GeneratorError:  # a problem of the model, which `find_problems` reports
        return {}
    if found is None:
        return {}
    folder, kind = found
    if kind.text is None:
        return _examine_labels(folder, prompts)
    readers = [
        reader
        for name, most in kind.text.tokens.items()
        if (reader := TextReader.open(folder / name, most=most))
    ]
    return find_cuts(readers, prompts)


def find_local(settings: PretrainedSettings, path: Path) -> tuple[Path, Kind] | None:
    """Return the folder of a pipeline's configurations and its kind; None: not on this machine."""
    folder = local_folder(settings, path)
    if folder is None:
        return None
    return folder, find_kind(read_index(folder).get("_class_name"), folder)


def _is_hub_id(model: str) -> bool:
    return bool(_HUB_ID.fullmatch(model)) and not model.startswith(".") and ".." not in model


def _examine_labels(folder: Path, prompts: Iterable[str]) -> dict[str, PromptFinding]:
    classes = _config(folder, "transformer").get("num_embeds_ada_norm")
    if classes is None:
        return {}
    labels = DiTLabels(read_index(folder).get("id2label") or {}, int(classes))
    complaints = {prompt: labels.complaint(prompt) for prompt in prompts}
    return {
        prompt: PromptFinding(text, None, labels.wanted)
        for prompt, text in complaints.items()
        if text
    }


def _missing_weights(folder: Path, kind: Kind) -> Iterator[Problem]:
    for component, folders in kind.folders.items():
        if component == "scheduler":
            continue
        files = component_files(folder, kind, component)
        if not any(file.suffix == ".safetensors" for file in files):
            text = (
                f"{folder} has no weights of the {component}: wanted .safetensors in "
                f"{' or '.join(folders)}; load other formats with diffusers where you trust them, "
                f"and save them with `save_pretrained`"
            )
            yield Problem(_MODEL, text)


def _missing_reader(folder: Path, kind: Kind) -> Iterator[Problem]:
    """Yield a tokenizer that needs a library which is not installed."""
    for name in kind.text.tokens if kind.text else ():
        files = {path.name for path in (folder / name).glob("*")}
        if "spiece.model" not in files or "tokenizer.json" in files:
            continue
        if importlib.util.find_spec("sentencepiece") is None:
            text = (
                f"{folder / name} holds T5's tokenizer as spiece.model alone, which needs a library"
            )
            yield Problem(_MODEL, f"{text}: pip install sentencepiece")


def _wrong_images(folder: Path, kind: Kind, size_px: int, channels: int) -> Iterator[Problem]:
    vae = _config(folder, "vae")
    wanted = vae.get("in_channels", channels)
    if wanted != channels:
        text = f"{folder} takes images of {wanted} channels, found {channels}"
        yield Problem(("dataset", "channels"), text)
    factor = 2 ** (len(vae.get("block_out_channels", [0])) - 1)
    denoiser = _config(folder, kind.folders["denoiser"][0])
    yield from _wrong_size(folder, kind, size_px, factor, denoiser)
    latents = vae.get("latent_channels")
    if latents and denoiser.get("in_channels", latents * kind.packing) != latents * kind.packing:
        text = (
            f"{folder} denoises {denoiser['in_channels'] // kind.packing} channels where its "
            f"autoencoder makes {latents}: it is made for another task, such as inpainting; name a "
            f"text-to-image pipeline"
        )
        yield Problem(_MODEL, text)


def _wrong_size(
    folder: Path, kind: Kind, size_px: int, factor: int, denoiser: dict[str, Any]
) -> Iterator[Problem]:
    """Yield a size of images that the kind does not take; `factor` pixels are one latent value."""
    if kind.sizes == "trained":
        wanted_px = int(denoiser.get("sample_size", size_px // factor)) * factor
        if size_px != wanted_px:
            text = f"this {kind.name} takes images of {wanted_px} px only, found {size_px}"
            yield Problem(_SIZE, text)
    elif kind.sizes == "patches":
        patch_px = factor * (2 if kind.packing > 1 else int(denoiser.get("patch_size", 2)))
        most_px = patch_px * int(denoiser.get("pos_embed_max_size", size_px))
        if size_px % patch_px or size_px > most_px:
            text = (
                f"this {kind.name} takes images whose size divides by {patch_px} px, of at most "
                f"{most_px} px, found {size_px}"
            )
            yield Problem(_SIZE, text)
    elif size_px < factor:
        text = f"{folder} takes images of {factor} px at least, found {size_px}"
        yield Problem(_SIZE, text)


def _config(folder: Path, name: str, file: str = "config.json") -> dict[str, Any]:
    """Return a part's configuration; empty where there is none that can be read."""
    path = folder / name / file
    try:
        loaded = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        return {}  # diffusers refuses it when it is loaded
    return loaded if isinstance(loaded, dict) else {}
