"""The columns of a data set that Hugging Face's library loads: images and labels."""

from typing import TYPE_CHECKING, Any

from d4m.errors import SourceError
from d4m.settings import HuggingFaceSettings

if TYPE_CHECKING:
    from datasets import Dataset

_TEXT = ("string", "large_string")
WHOLE = ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool")


def check_columns(settings: HuggingFaceSettings, split: str, dataset: "Dataset") -> None:
    """Refuse a split without the columns that the settings name, of types that can be used.

    Raises:
        SourceError: a column is missing or of another type.
    """
    kinds = {name: _kind(feature) for name, feature in dataset.features.items()}
    wanted = {
        "image": (settings.image_column, ("Image", "binary", "large_binary")),
        "label": (settings.label_column, ("ClassLabel", *_TEXT, *WHOLE)),
    }
    for role, (column, allowed) in wanted.items():
        if kinds.get(column) not in allowed:
            listed = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
            msg = (
                f"`dataset.{role}_column`: wanted a column '{column}' of type {allowed[0]} (or "
                f"{', '.join(allowed[1:3])}) in split '{split}' of {settings.path}; it has "
                f"{listed}; name one of them"
            )
            raise SourceError(msg)


def _kind(feature: Any) -> str:
    """Return the type of a column's values: Arrow's name for it, or the library's."""
    return (
        getattr(feature, "dtype", "")
        if type(feature).__name__ == "Value"
        else type(feature).__name__
    )
