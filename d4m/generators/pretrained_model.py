"""Find and load a latent diffusion pipeline: a hub id, a folder in diffusers' layout, or a file.

Finding out which pipeline a recipe means imports neither torch nor diffusers; loading it does.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d4m.errors import GeneratorError
from d4m.generators.hub_files import cached_folder, download
from d4m.generators.kinds import Kind, find_kind
from d4m.generators.weight_files import (
    TENSOR_PREFIXES,
    component_files,
    digest_files,
    digest_tensors,
    find_variant,
    read_index,
    tensor_names,
)
from d4m.settings import PretrainedSettings
from d4m.store.file_stamps import describe_file

COMPONENTS = ("vae", "text_encoder", "denoiser", "scheduler")


@dataclass(frozen=True)
class PretrainedModel:
    """A pipeline that is on this machine.

    Attributes:
        path: its folder, or its .safetensors file.
        configs: the folder of its configurations and tokenizers; of a folder, the same.
        kind: what it consists of.
        precision: number format of its weights once loaded.
    """

    path: Path
    configs: Path
    kind: Kind
    precision: str

    @property
    def is_file(self) -> bool:
        """Whether all weights are in one file."""
        return self.path != self.configs


def resolve_precision(settings: PretrainedSettings, device: str) -> str:
    """Return the number format of the weights: `auto` is float16 on a GPU and float32 elsewhere."""
    if settings.precision != "auto":
        return settings.precision
    return "float16" if device.startswith("cuda") else "float32"


def describe_origin(
    settings: PretrainedSettings, path: Path, device: str
) -> dict[str, dict[str, Any]]:
    """Describe what identifies each component, without reading weights.

    A folder is described by size, times and inode of each component's files, a single file by its
    own, a hub id by its revision; all of them by the precision. Files whose change times cannot be
    trusted are read. A hub id that is not on this machine yet
    may turn out to have fewer components.

    Args:
        settings: which pipeline.
        path: the file or folder that the settings may mean.
        device: where the pipeline will be.
    """
    precision = resolve_precision(settings, device)
    if path.is_file():
        return _describe_file(path, precision)
    folder = path if path.is_dir() else cached_folder(settings)
    kind = None if folder is None else find_kind(read_index(folder).get("_class_name"), folder)
    if path.is_dir() and kind:
        return {
            component: {"precision": precision, **_describe_files(path, kind, component)}
            for component in kind.folders
        }
    origin = {"model": settings.model, "revision": settings.revision, "precision": precision}
    return {component: dict(origin) for component in (kind.folders if kind else COMPONENTS)}


def find_model(settings: PretrainedSettings, path: Path, device: str) -> PretrainedModel:
    """Find the pipeline on this machine; a hub id is downloaded once, without pickle files.

    Args:
        settings: which pipeline.
        path: the file or folder that the settings may mean.
        device: where the pipeline will be.

    Raises:
        GeneratorError: there is no such file, folder or hub id, or it holds no supported pipeline.
    """
    precision = resolve_precision(settings, device)
    if path.is_file():
        from d4m.generators.single_file import find_configs

        configs = find_configs(path)
        kind = find_kind(read_index(configs).get("_class_name"), configs)
        if not kind.single_file:
            raise GeneratorError(refuse_single_file(kind, path))
        return PretrainedModel(path, configs, kind, precision)
    folder = path if path.is_dir() else download(settings, path)
    kind = find_kind(read_index(folder).get("_class_name"), folder)
    return PretrainedModel(folder, folder, kind, precision)


def refuse_single_file(kind: Kind, path: Path) -> str:
    """Return why one file is no pipeline of a kind."""
    return f"{path}: wanted {kind.name} as a folder or hub id, found one file; name its folder"


def component_digests(model: PretrainedModel, component: str) -> dict[str, str]:
    """Return the sha256 of everything that one component is loaded from.

    Raises:
        GeneratorError: the pipeline has no such component in safetensors format.
    """
    digests = digest_files(model.configs, model.kind, component, weights=not model.is_file)
    needed = ".json" if component == "scheduler" else ".safetensors"
    if model.is_file and component in TENSOR_PREFIXES:
        needed = TENSOR_PREFIXES[component][0]
        if tensors := digest_tensors(model.path, component):
            digests[needed] = tensors
    if not any(name.endswith(needed) for name in digests):
        msg = (
            f"{model.path} has no {component}: wanted {needed} in "
            f"{' or '.join(model.kind.folders[component])}, found {sorted(digests) or 'nothing'}; "
            f"weights in other formats are refused: load them with diffusers where you trust them, "
            f"and save them with `save_pretrained`"
        )
        raise GeneratorError(msg)
    return digests


def load_vae(model: PretrainedModel) -> Any:
    """Load the pipeline's autoencoder, in evaluation mode.

    An SDXL VAE with `force_upcast` comes in float32 where the rest is in float16, in which it
    overflows; the stock SDXL pipelines upcast it likewise, for each call.

    Raises:
        GeneratorError: diffusers cannot load it.
    """
    import torch
    from diffusers import AutoencoderKL

    upcast = model.kind.upcasts_vae and _forces_upcast(model.configs)
    half = model.precision == "float16"
    dtype = torch.float32 if half and upcast else getattr(torch, model.precision)
    try:
        if model.is_file:
            vae: Any = AutoencoderKL.from_single_file(
                str(model.path), config=str(model.configs), subfolder="vae", torch_dtype=dtype
            )
        else:
            files = component_files(model.path, model.kind, "vae")
            variant = find_variant(model.path, model.kind)
            vae = AutoencoderKL.from_pretrained(
                model.path,
                subfolder="vae",
                dtype=dtype,
                use_safetensors=True,
                variant=variant if any(f".{variant}" in file.name for file in files) else None,
            )
    except _load_errors() as failure:
        msg = f"diffusers cannot load an autoencoder from {model.path}: {failure}"
        raise GeneratorError(msg) from failure
    return vae.eval()


def load_pipeline(model: PretrainedModel) -> Any:
    """Load the pipeline as an img2img pipeline, without a safety checker and without watermarks.

    A safety checker blacks images out; `synthetic_images` has a check for blank images instead.

    Raises:
        GeneratorError: diffusers cannot load it.
    """
    import torch

    pipeline = model.kind.pipeline()
    given = {
        "vae": load_vae(model),
        "dtype": getattr(torch, model.precision),
        **model.kind.arguments,
    }
    try:
        if model.is_file:
            return pipeline.from_single_file(str(model.path), config=str(model.configs), **given)
        variant = find_variant(model.path, model.kind)
        given = _left_out(model) | given
        return pipeline.from_pretrained(model.path, use_safetensors=True, variant=variant, **given)
    except _load_errors() as failure:
        msg = f"diffusers cannot load an img2img pipeline from {model.path}: {failure}"
        raise GeneratorError(msg) from failure


def _left_out(model: PretrainedModel) -> dict[str, None]:
    """Return the text encoders that the pipeline was saved without, as SD3 may be without T5."""
    index = read_index(model.configs)
    folders = model.kind.folders.get("text_encoder", ())
    return {name: None for name in folders if index.get(name) == [None, None]}


def _load_errors() -> tuple[type[Exception], ...]:
    from diffusers.loaders.single_file_utils import SingleFileComponentError
    from safetensors import SafetensorError

    return (OSError, ValueError, KeyError, SafetensorError, SingleFileComponentError)


def _forces_upcast(configs: Path) -> bool:
    path = configs / "vae" / "config.json"
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("force_upcast", True)


def local_folder(settings: PretrainedSettings, path: Path) -> Path | None:
    """Return the folder of a pipeline's configurations, if it is on this machine.

    Args:
        settings: which pipeline.
        path: the file or folder that the settings may mean.
    """
    if path.is_file():
        from d4m.generators.single_file import local_configs

        return local_configs(path)
    return path if path.is_dir() else cached_folder(settings)


def _describe_file(path: Path, precision: str) -> dict[str, dict[str, Any]]:
    from d4m.generators.single_file import local_configs

    configs = local_configs(path)
    origin: dict[str, Any] = {"precision": precision, "file": describe_file(path)}
    if configs is None:
        tensor_names(path)  # refuses what is not in safetensors format
        return {component: dict(origin) for component in COMPONENTS}
    kind = find_kind(read_index(configs).get("_class_name"), configs)
    return {c: origin | _describe_files(configs, kind, c, weights=False) for c in kind.folders}


def _describe_files(
    folder: Path, kind: Kind, component: str, *, weights: bool = True
) -> dict[str, Any]:
    files = component_files(folder, kind, component, weights=weights)
    if component == "denoiser" and kind.options:
        files.append(folder / "model_index.json")
    return {path.relative_to(folder).as_posix(): describe_file(path) for path in files}
