"""The files of a pipeline on the hub: those that are on this machine already, and the others.

Only safetensors files are downloaded, never pickle files. Importing this imports no torch.
"""

from collections.abc import Sequence
from pathlib import Path

from d4m.errors import GeneratorError
from d4m.generators.kinds import find_kind
from d4m.generators.weight_files import read_index
from d4m.settings import PretrainedSettings

_CONFIGS = ("*.json", "*.txt", "*.model")
_FULL_WEIGHTS = ("*model.safetensors", "*model-*-of-*.safetensors")
_VARIANTS = ("*model.fp16.safetensors", "*model.fp16-*.safetensors")


def cached_folder(settings: PretrainedSettings) -> Path | None:
    """Return the folder of a hub id that was downloaded earlier; asks no network."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(
            settings.model, "model_index.json", revision=settings.revision
        )
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def download(settings: PretrainedSettings, path: Path) -> Path:
    """Download a hub id's weights, half-precision ones where no others are; return the folder.

    Args:
        settings: which pipeline.
        path: the file or folder that the settings do not mean, for the message.

    Raises:
        GeneratorError: there is no such hub id, or it holds no supported pipeline.
    """
    folder = _snapshot(settings, path, _CONFIGS)
    kind = find_kind(read_index(folder).get("_class_name"), f"hub model '{settings.model}'")
    for turn in range(2):
        wanting = [
            name for name in kind.weight_folders if not any((folder / name).glob("*.safetensors"))
        ]
        if wanting:
            _snapshot(settings, path, weight_patterns(wanting)[turn])
    return folder


def weight_patterns(folders: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the patterns of these folders' weight files, in full and in half precision."""
    full, half = (
        [f"{folder}/{name}" for folder in folders for name in names]
        for names in (_FULL_WEIGHTS, _VARIANTS)
    )
    return full, half


def _snapshot(settings: PretrainedSettings, path: Path, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                settings.model, revision=settings.revision, allow_patterns=list(patterns)
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as failure:
        msg = (
            f"`generator.pretrained.model`: wanted a hub id, a pipeline folder or a .safetensors "
            f"file, found neither a file or folder {path} nor a hub model '{settings.model}': "
            f"{failure}"
        )
        raise GeneratorError(msg) from failure
