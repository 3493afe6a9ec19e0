"""Find and digest the files of a pipeline's components, without torch."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from d4m.errors import GeneratorError
from d4m.generators.kinds import Kind
from d4m.store.digest import digest_file, digest_json

_CONFIG_SUFFIXES = (".json", ".txt", ".model")
_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_)?model(?:\.(?P<variant>[\w]+))?(?:-\d+-of-\d+)?\.safetensors"
)
_BLOCK = 1 << 20
TENSOR_PREFIXES = {
    "vae": ("first_stage_model.",),
    "text_encoder": ("cond_stage_model.", "conditioner."),
    "denoiser": ("model.diffusion_model.",),
}
"""Component -> prefixes of its tensors' names in one file of Stable Diffusion's own layout."""


def read_index(folder: Path) -> dict[str, Any]:
    """Read a pipeline's `model_index.json`.

    Raises:
        GeneratorError: the file is missing, or is not a JSON object.
    """
    path = folder / "model_index.json"
    if not path.is_file():
        msg = f"{folder} is not a diffusers pipeline folder: it has no model_index.json"
        raise GeneratorError(msg)
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as failure:
        msg = f"{path} is not JSON: {failure}; download or save the pipeline again"
        raise GeneratorError(msg) from failure
    if not isinstance(index, dict):
        msg = f"{path}: wanted a JSON object, found {type(index).__name__}"
        raise GeneratorError(msg)
    return index


def find_variant(folder: Path, kind: Kind) -> str | None:
    """Return the variant of the weights to load, or None if every component has full weights.

    If a component has no full weights, return `fp16` if it has that variant, else its first variant
    in alphabetical order.
    """
    for name in kind.weight_folders:
        variants = _variants(folder / name)
        if variants and None not in variants:
            return "fp16" if "fp16" in variants else min(map(str, variants))
    return None


def component_files(
    folder: Path, kind: Kind, component: str, *, weights: bool = True
) -> list[Path]:
    """List a component's configurations and the weights that are loaded, in diffusers' layout.

    A component without files of the variant is loaded from its full weights, as in diffusers.

    Args:
        folder: the pipeline's folder.
        kind: the pipeline's kind.
        component: one of the kind's components.
        weights: whether to include weights; False if the weights are in another file.
    """
    variant = find_variant(folder, kind)
    files = list[Path]()
    for name in kind.folders[component]:
        here = variant if variant in _variants(folder / name) else None
        for path in sorted((folder / name).glob("*")):
            named = _WEIGHTS.fullmatch(path.name)
            loaded = weights and named is not None and named["variant"] == here
            if loaded or (path.suffix in _CONFIG_SUFFIXES and path.is_file()):
                files.append(path)
    return files


def digest_files(
    folder: Path, kind: Kind, component: str, *, weights: bool = True
) -> dict[str, str]:
    """Return the sha256 of each of a component's files.

    For a denoiser, add that of the pipeline's options in `model_index.json`. The arguments are
    those of `component_files`.
    """
    digests = {
        path.relative_to(folder).as_posix(): digest_file(path)
        for path in component_files(folder, kind, component, weights=weights)
    }
    if component == "denoiser" and kind.options:
        index = read_index(folder)
        options = {name: index[name] for name in kind.options if name in index}
        digests["model_index.json"] = digest_json(options)
    return digests


def digest_tensors(path: Path, component: str) -> str | None:
    """Return one sha256 over name, dtype, shape and bytes of a component's tensors, by name.

    Args:
        path: one .safetensors file in Stable Diffusion's own layout.
        component: a key of `TENSOR_PREFIXES`.

    Returns:
        The digest, or None if the file has no tensors of the component.

    Raises:
        GeneratorError: the file is not in safetensors format.
    """
    header, start = _read_header(path)
    names = sorted(name for name in header if name.startswith(TENSOR_PREFIXES[component]))
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        for name in names:
            entry = header[name]
            hasher.update(f"{name}:{entry['dtype']}:{entry['shape']};".encode())
            first, last = entry["data_offsets"]
            file.seek(start + first)
            for position in range(first, last, _BLOCK):
                hasher.update(file.read(min(_BLOCK, last - position)))
    return hasher.hexdigest() if names else None


def tensor_names(path: Path) -> Iterable[str]:
    """Return the names of all tensors in a .safetensors file."""
    return _read_header(path)[0].keys()


def _variants(folder: Path) -> set[str | None]:
    found = [_WEIGHTS.fullmatch(path.name) for path in folder.glob("*.safetensors")]
    return {match["variant"] for match in found if match}


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Read a .safetensors file's header, and return it with the offset of the tensors' bytes.

    Source:
        The safetensors format: the header's length in eight bytes, the header in JSON, the bytes.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError) as failure:
        msg = f"{path} is not a valid .safetensors file: {failure}; download it again"
        raise GeneratorError(msg) from failure
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length
