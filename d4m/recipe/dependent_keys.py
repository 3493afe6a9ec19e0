"""Keys of a preset that follow from the rest of the recipe, such as its images per class."""

from collections.abc import Mapping
from typing import Any

Sections = dict[str, Any]

# Mean and deviation of each channel, from utils.py of VICO-UoE/DatasetCondensation. The deviations
# of CIFAR-10 are means over images of the deviation within one image.
_CHANNELS: Mapping[str, tuple[list[float], list[float]]] = {
    "mnist": ([0.1307], [0.3081]),
    "fashion_mnist": ([0.2861], [0.353]),
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.201]),
    "cifar100": ([0.5071, 0.4866, 0.4409], [0.2673, 0.2564, 0.2762]),
}
_DIGITS = ("mnist", "digits")  # which no flip leaves as they are


def by_recipe(name: str, sections: Mapping[str, Any]) -> Sections:
    """Return the keys of a preset that depend on what else the recipe says.

    Args:
        name: of the preset.
        sections: the recipe's sections, with those of its presets.

    Example:
        >>> by_recipe("minimax", {"prototypes": {"ipc": 50}})
        {'evaluation': {'hard': {'epochs': 1500}}}
    """
    depending = {
        "rded": _rded_by_recipe,
        "minimax": _minimax_by_recipe,
        "dc": _dc_by_recipe,
        "dd_ranking": _dd_ranking_by_recipe,
    }
    return depending[name](sections) if name in depending else {}


def _rded_by_recipe(sections: Mapping[str, Any]) -> Sections:
    ipc = _number(sections, "prototypes", "ipc")
    filled = _imagenets_crop(sections)
    if ipc is not None and not 10 <= ipc < 50:
        filled["optimizer"] = {"batch_size": 20 if ipc < 10 else 200}
    return {"evaluation": filled} if filled else {}


def _minimax_by_recipe(sections: Mapping[str, Any]) -> Sections:
    ipc, size_px = _number(sections, "prototypes", "ipc"), _number(sections, "synthesis", "size_px")
    filled = Sections()
    if size_px is not None:
        crop = {"resize_px": size_px, "crop_px": size_px, "resampling": "bilinear"}
        filled["test_crop"] = crop
    if ipc is not None and not 1 < ipc <= 10:
        most_images = ((1, 3000), (50, 1500), (200, 1000), (500, 500))
        epochs = next((epochs for most, epochs in most_images if ipc <= most), 300)
        filled["hard"] = {"epochs": epochs}
    return {"evaluation": filled} if filled else {}


def _dc_by_recipe(sections: Mapping[str, Any]) -> Sections:
    dataset = sections.get("dataset")
    source = dataset.get("source") if isinstance(dataset, Mapping) else None
    filled = Sections()
    if isinstance(source, str) and source in _CHANNELS:
        mean, deviation = _CHANNELS[source]
        filled["pixels"] = {"mean": list(mean), "deviation": list(deviation)}
    if source in _DIGITS:
        changes = ["color", "crop", "cutout", "scale", "rotate"]
        filled["hard"] = {"batch_changes": changes}
    return {"evaluation": filled} if filled else {}


def _dd_ranking_by_recipe(sections: Mapping[str, Any]) -> Sections:
    filled = _imagenets_crop(sections)
    return {"evaluation": filled} if filled else {}


def _imagenets_crop(sections: Mapping[str, Any]) -> Sections:
    """Return how test images of 224 px are read; nothing for other sizes."""
    if _number(sections, "synthesis", "size_px") != 224:
        return {}
    return {"test_crop": {"resize_px": 256, "crop_px": 224, "resampling": "bilinear"}}


def _number(sections: Mapping[str, Any], section: str, key: str) -> int | None:
    """Return a whole number of a recipe; None where it says none."""
    found = sections.get(section)
    value = found.get(key) if isinstance(found, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
