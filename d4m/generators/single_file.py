"""Configurations and tokenizers for one .safetensors file, which holds weights alone."""

import logging
from pathlib import Path

from d4m.errors import GeneratorError

_log = logging.getLogger(__name__)
_PATTERNS = ["*.json", "*.txt", "*.model"]


def local_configs(path: Path) -> Path | None:
    """The folder beside the file that is named like it: `model/` for `model.safetensors`."""
    beside = path.with_suffix("")
    return beside if (beside / "model_index.json").is_file() else None


def find_configs(path: Path) -> Path:
    """A folder in diffusers' layout with the configurations that belong to one file of weights.

    The folder beside the file where there is one, else the hub's for the kind of model that
    diffusers takes the weights for.

    Raises:
        GeneratorError: there is neither, or the weights are of no kind that diffusers knows.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if (beside := local_configs(path)) is not None:
        return beside
    origin = _hub_id(path)
    _log.info("%s: configurations from the hub's %s", path, origin)
    try:
        return Path(snapshot_download(origin, allow_patterns=_PATTERNS))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as failure:
        msg = (
            f"{path} holds weights alone, and its configurations cannot be had from the hub's "
            f"'{origin}': {failure}. Connect to the hub once, or put the configurations of a "
            f"pipeline like it (model_index.json, and per component its .json files and tokenizer) "
            f"into the folder {path.with_suffix('')}"
        )
        raise GeneratorError(msg) from failure


def _hub_id(path: Path) -> str:
    """The hub id of the pipeline whose configurations fit the weights, as diffusers infers it."""
    from diffusers.loaders.single_file_utils import fetch_diffusers_config
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return fetch_diffusers_config(load_file(path))["pretrained_model_name_or_path"]
    except (SafetensorError, OSError, KeyError, AttributeError) as failure:
        msg = (
            f"{path} is no checkpoint that diffusers knows: {failure}; name the pipeline's folder "
            f"or hub id instead"
        )
        raise GeneratorError(msg) from failure
