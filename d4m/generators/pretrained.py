"""Latent diffusion pipelines that exist already: a hub id, or a folder in diffusers' layout.

Telling which pipeline a recipe means loads neither torch nor diffusers; loading it does.
"""

from pathlib import Path
from typing import Any

from d4m.errors import GeneratorError
from d4m.recipe import Recipe
from d4m.settings import PretrainedSettings
from d4m.store.digest import digest_file

COMPONENTS = ("vae", "text_encoder", "denoiser", "scheduler")
_FOLDERS = {
    "vae": ("vae",),
    "text_encoder": ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
    "denoiser": ("unet", "transformer"),
    "scheduler": ("scheduler",),
}
_SUFFIXES = (".safetensors", ".json", ".txt", ".model")


def describe_origin(settings: PretrainedSettings, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """What identifies the components without reading weights.

    A folder is described by size and time of each component's files, a hub id by its revision.
    """
    folder = recipe.locate(settings.model)
    if not folder.is_dir():
        origin = settings.model_dump(mode="json")
        return dict.fromkeys(COMPONENTS, origin)
    return {
        component: {
            "precision": settings.precision,
            **{
                path.relative_to(folder).as_posix(): [path.stat().st_size, path.stat().st_mtime_ns]
                for path in _component_files(folder, component)
            },
        }
        for component in COMPONENTS
    }


def find_folder(settings: PretrainedSettings, recipe: Recipe) -> Path:
    """The pipeline's folder; a hub id is downloaded once, without pickle files.

    Raises:
        GeneratorError: there is no such folder and no such hub id, or it holds no pipeline.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    folder = recipe.locate(settings.model)
    if not folder.is_dir():
        patterns = [f"*{suffix}" for suffix in _SUFFIXES]
        try:
            folder = Path(
                snapshot_download(
                    settings.model, revision=settings.revision, allow_patterns=patterns
                )
            )
        except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as failure:
            msg = (
                f"`generator.pretrained.model`: wanted a hub id or a pipeline folder, found "
                f"neither a folder {folder} nor a hub model '{settings.model}': {failure}"
            )
            raise GeneratorError(msg) from failure
    if not (folder / "model_index.json").is_file():
        msg = f"{folder} is not a diffusers pipeline folder: it has no model_index.json"
        raise GeneratorError(msg)
    return folder


def component_digests(folder: Path, component: str) -> dict[str, str]:
    """sha256 of every weight and configuration file of one component.

    Raises:
        GeneratorError: the pipeline has no such component in safetensors format.
    """
    files = {
        path.relative_to(folder).as_posix(): digest_file(path)
        for path in _component_files(folder, component)
    }
    needed = ".json" if component == "scheduler" else ".safetensors"
    if not any(name.endswith(needed) for name in files):
        msg = f"{folder} has no {component}: none of {_FOLDERS[component]} holds a {needed} file"
        raise GeneratorError(msg)
    return files


def load_vae(folder: Path, settings: PretrainedSettings) -> Any:
    """The pipeline's autoencoder, in evaluation mode.

    Raises:
        GeneratorError: diffusers cannot load it.
    """
    import torch
    from diffusers import AutoencoderKL

    dtype = getattr(torch, settings.precision)
    try:
        return AutoencoderKL.from_pretrained(
            folder, subfolder="vae", dtype=dtype, use_safetensors=True
        ).eval()
    except (OSError, ValueError) as failure:
        msg = f"diffusers cannot load an autoencoder from {folder}: {failure}"
        raise GeneratorError(msg) from failure


def load_pipeline(folder: Path, settings: PretrainedSettings) -> Any:
    """The pipeline as diffusers' own img2img class for it, without a safety checker.

    A safety checker blacks images out; `synthetic_images` has a check for blank images instead.
    """
    import torch
    from diffusers import AutoPipelineForImage2Image

    dtype = getattr(torch, settings.precision)
    extra = {} if not (folder / "safety_checker").is_dir() else {"safety_checker": None}
    try:
        return AutoPipelineForImage2Image.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, **extra
        )
    except (OSError, ValueError) as failure:
        msg = f"diffusers cannot load an img2img pipeline from {folder}: {failure}"
        raise GeneratorError(msg) from failure


def _component_files(folder: Path, component: str) -> list[Path]:
    return sorted(
        path
        for name in _FOLDERS[component]
        for path in (folder / name).glob("*")
        if path.suffix in _SUFFIXES and path.is_file()
    )
