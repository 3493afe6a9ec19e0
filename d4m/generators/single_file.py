"""Find configurations and tokenizers for a single .safetensors file, which has weights only."""

import logging
from pathlib import Path

from d4m.errors import GeneratorError

_log = logging.getLogger(__name__)
_PATTERNS = ["*.json", "*.txt", "*.model"]


def local_configs(path: Path) -> Path | None:
    """Return the folder `model/` next to `model.safetensors`, if it has configurations."""
    folder = path.with_suffix("")
    return folder if (folder / "model_index.json").is_file() else None


def find_configs(path: Path) -> Path:
    """Find a folder in diffusers' layout with the configurations that fit one file of weights.

    That is the folder next to the file that `local_configs` returns. If there is none, it is a
    download from the hub, for the kind of model that diffusers infers from the weights.

    Raises:
        GeneratorError: there is neither, or diffusers does not recognise the weights.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if (folder := local_configs(path)) is not None:
        return folder
    origin = _hub_id(path)
    _log.info("%s: using the configurations of %s on the hub", path, origin)
    try:
        return Path(snapshot_download(origin, allow_patterns=_PATTERNS))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as failure:
        msg = (
            f"{path} has weights only, and its configurations cannot be downloaded from "
            f"'{origin}' on the hub: {failure}. Connect to the hub once, or put the configurations "
            f"of such a pipeline (model_index.json, and each component's .json files and "
            f"tokenizer) into the folder {path.with_suffix('')}"
        )
        raise GeneratorError(msg) from failure


def _hub_id(path: Path) -> str:
    """Infer, with diffusers, the hub id of a pipeline whose configurations fit the weights."""
    from diffusers.loaders.single_file_utils import fetch_diffusers_config
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return fetch_diffusers_config(load_file(path))["pretrained_model_name_or_path"]
    except (SafetensorError, OSError, KeyError, AttributeError) as failure:
        msg = (
            f"{path} is not a checkpoint that diffusers recognises: {failure}; give the pipeline's "
            f"folder or hub id instead"
        )
        raise GeneratorError(msg) from failure
