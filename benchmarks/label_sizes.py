"""The space that soft labels take on a disk: published files and our formats."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from published_training import draw_crops, draw_mix, label_file

from d4m.settings import AugmentationSettings, SoftLabelSettings
from d4m.store.layout import write_group
from d4m.training.label_formats import pack_logits

FORMATS: dict[str, dict[str, Any]] = {
    "float16": {"format": "float16"},
    "uint8": {"format": "uint8"},
    **{f"top_k {k}": {"format": "top_k", "top_k": k} for k in (5, 3, 2)},
}


def write_labels(folder: Path, logits: np.ndarray, settings: Mapping[str, Any]) -> None:
    """Write labels as the store does: a group for every block of epochs."""
    labels = SoftLabelSettings(**settings)
    for start in range(0, len(logits), labels.epochs_per_block):
        block = pack_logits(logits[start : start + labels.epochs_per_block], labels)
        write_group(folder / f"epochs-{start:06d}", "soft_labels", block, {})


def compare_sizes(folder: Path, *, images: int, classes: int, batch_size: int) -> None:
    """Print rows of the third table, for random logits of ImageNet's shape: only size counts."""
    random = np.random.default_rng(0)
    logits = random.standard_normal((1, images, classes), np.float32)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        for number, start in enumerate(range(0, images, batch_size)):
            batch = torch.from_numpy(logits[0, start : start + batch_size]).half()
            coords = draw_crops(AugmentationSettings(), len(batch), 224)
            flips = torch.rand(len(batch)) < 0.5
            mix = draw_mix(AugmentationSettings(), len(batch), 224)
            path = label_file(folder / "published", 0, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save([coords, flips, *mix, batch], path)
    published = count_bytes(folder / "published")
    print(f"| published | {published / images:.1f} | 1.0 |")
    for name, settings in FORMATS.items():
        write_labels(folder / name, logits, settings)
        size = count_bytes(folder / name)
        print(f"| d4m, {name} | {size / images:.1f} | {published / size:.1f} |")


def count_bytes(folder: Path) -> int:
    """Return the size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
