"""Which files a pipeline's components are made of, and what those hold; read without torch."""

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
"""Component -> how the names of its tensors start in one file of Stable Diffusion's own layout."""


def read_index(folder: Path) -> dict[str, Any]:
    """A pipeline's `model_index.json`.

    Raises:
        GeneratorError: there is none, or it is not an object in JSON.
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
        msg = f"{path}: wanted an object in JSON, found {type(index).__name__}"
        raise GeneratorError(msg)
    return index


def find_variant(folder: Path, kind: Kind) -> str | None:
    """The variant of the weights to load: none where every component has full weights.

    Else `fp16`, or the first variant in alphabetical order, of a component without full ones.
    """
    for name in kind.weight_folders:
        variants = _variants(folder / name)
        if variants and None not in variants:
            return "fp16" if "fp16" in variants else min(map(str, variants))
    return None


def component_files(
    folder: Path, kind: Kind, component: str, *, weights: bool = True
) -> list[Path]:
    """Configurations and the weights that are loaded, in a folder of diffusers' layout.

    A component without files of the variant is loaded from its full weights, as diffusers does.

    Args:
        folder: the pipeline's folder.
        kind: the pipeline's kind.
        component: one of the kind's.
        weights: whether weights count, or come from elsewhere.
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
    """sha256 of a component's files as above; of a denoiser, of its pipeline's options too."""
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
    """sha256 over name, dtype, shape and bytes of a component's tensors, in name order.

    Args:
        path: one .safetensors file in Stable Diffusion's own layout.
        component: a key of `TENSOR_PREFIXES`.

    Returns:
        None where the file has no such tensors.

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
    """Names of all tensors of a .safetensors file."""
    return _read_header(path)[0].keys()


def _variants(folder: Path) -> set[str | None]:
    found = [_WEIGHTS.fullmatch(path.name) for path in folder.glob("*.safetensors")]
    return {match["variant"] for match in found if match}


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """What a .safetensors file says of its tensors, and where their bytes begin.

    Source:
        The safetensors format: eight bytes of length, JSON of that length, the tensors' bytes.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError) as failure:
        msg = f"{path} is not a whole .safetensors file: {failure}; download it again"
        raise GeneratorError(msg) from failure
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length
