"""Measure the memory and the bytes of exported soft labels: 1,000 classes x 50 at 64 px.

    python benchmarks/export_labels.py [EPOCHS]

Views are drawn as a recipe with the default augmentation draws them; top-5 labels are random, so
they compress worse than a teacher's. Both are stored as `distilled_dataset` stores them. Then they
are exported by a process of its own, whose memory is measured.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from peak_memory import peak_mib

IMAGES, CLASSES, TOP_K, SIZE_PX = 50_000, 1_000, 5, 64


def store(folder: Path, epochs: int) -> None:
    """Store views and labels as Zarr groups."""
    from d4m.settings import AugmentationSettings
    from d4m.store.layout import write_group_in_pieces
    from d4m.training.augment import draw_views

    def views() -> Iterator[dict[str, np.ndarray]]:
        settings = AugmentationSettings()
        for epoch in range(epochs):
            drawn = draw_views(settings, seed=1, epoch=epoch, images=IMAGES, size_px=SIZE_PX)
            yield {name: each[None] for name, each in vars(drawn).items() if each is not None}

    def labels() -> Iterator[dict[str, np.ndarray]]:
        for epoch in range(epochs):
            draw = np.random.default_rng(epoch)
            gaps = np.sort(draw.integers(0, 256, (1, IMAGES, TOP_K), dtype=np.uint8))
            classes = draw.integers(0, CLASSES, gaps.shape).astype(np.uint16)
            scales = draw.uniform(5, 25, (1, IMAGES)).astype(np.float16)
            yield {"classes": classes, "gaps": gaps, "scales": scales}

    for name, pieces in (("views", views()), ("soft_labels", labels())):
        write_group_in_pieces(folder / f"{name}.zarr", name, pieces, rows=epochs, attributes={})


def export(folder: Path) -> None:
    """Export the labels, and print the memory that this process took."""
    from d4m.export.contents import read_labelled_epochs
    from d4m.export.label_table import write_label_table

    write_label_table(folder / "export", read_labelled_epochs(folder), channels=3)
    print(f"peak memory {peak_mib():.0f} MiB")


def main(epochs: int) -> None:
    """Store, export, and compare the bytes with all logits as float16."""
    with tempfile.TemporaryDirectory() as temporary:
        store(Path(temporary), epochs)
        subprocess.run([sys.executable, __file__, "--export", temporary], check=True)
        size = sum(path.stat().st_size for path in (Path(temporary) / "export").iterdir())
    views = epochs * IMAGES
    print(
        f"{epochs} epochs: {size / 1e6:.0f} MB, {size / views:.1f} bytes per view and label, "
        f"1/{views * CLASSES * 2 / size:.0f} of float16 logits"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--export"]:
        export(Path(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
