"""Measure a device in eight minutes: synthesis, encoding, labels and students.

One command, `make bench-gpu`, prints one table and writes it as JSON, named after the device and
the day, into `benchmarks/devices/`. On a GPU the sizes are Stable Diffusion 1.5's at 512 px, with
random weights, and ResNet-18's at 224 px; on a CPU everything is small, so that the script itself
is tried. The published procedures are those of synthesis.py and published_training.py; encoding is
compared with one image at a time. A part that fails or for which no time is left is named in the
table, and the others are measured. The file is written after each part, so a run that is ended
early leaves what it has measured. Shares of the matrix rate are of large products in the row's own
number format.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_path import write_jpeg_files
from device_sizes import CPU, GPU, Size
from device_table import Row, Table, measure_part
from PIL import Image
from published_training import (
    PublishedImages,
    load_published,
    train_as_published,
    write_published_labels,
)
from students_together import Comparison
from students_together import Size as StudentsSize
from synthesis import LABELS, Bench, matrix_rate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from d4m.classifiers.registry import build_classifier
from d4m.generators.encode import encode_images
from d4m.images.image_set import ImageSet
from d4m.images.pixels import to_pixels
from d4m.images.spool import Spool
from d4m.recipe.presets import PRESETS
from d4m.settings import (
    AugmentationSettings,
    ClassifierSettings,
    EvaluationSettings,
    ImageFolderSettings,
    SoftLabelSettings,
    SynthesisSettings,
)
from d4m.sources.file_digests import FileDigests
from d4m.sources.image_folder import ImageFolderSource
from d4m.training.soft_labels import EpochLabels, draw_epoch, label_views, pack_labels
from d4m.training.train import Training, train_with_soft_labels

FOLDER = Path(__file__).parent / "devices"


def main() -> None:
    """Measure what time allows, print the table and write the file."""
    arguments = _arguments()
    size = GPU if arguments.device != "cpu" else CPU
    measure(size, arguments.device, minutes=arguments.minutes, out=arguments.out)


def measure(size: Size, device: str, *, minutes: float, out: Path) -> Path:
    """Measure part after part, print each, and write the file after each; return its path."""
    name = torch.cuda.get_device_name() if device != "cpu" else "CPU"
    table = Table(name, asdict(size), out)
    with tempfile.TemporaryDirectory() as folder:
        bench = Machine(size, device, Path(folder))
        parts = (
            bench.synthesis,
            bench.labels_and_students,
            bench.students_at_once,
            bench.encoding,
        )
        for number, part in enumerate(parts, 1):
            left = minutes - table.minutes
            table.add(measure_part(part, left * number / len(parts)))
    print(f"\n{table.minutes:.1f} minutes; written to {table.path}")
    return table.path


class Machine:
    """The device and what is measured on it."""

    def __init__(self, size: Size, device: str, folder: Path) -> None:
        """Measure nothing yet."""
        self.size, self.device, self.folder = size, device, folder
        self.matrix_rate = cache(partial(matrix_rate, device))  # of a number format

    def synthesis(self) -> list[Row]:
        """Draw images: equal steps, then the preset `fast`."""
        size = self.size
        options = argparse.Namespace(
            device=self.device,
            size=size.pipeline,
            image_px=size.image_px,
            ipc=size.ipc,
            steps=size.steps,
            batch_size=None,
        )
        bench = Bench(options, self.folder)
        one_each = {
            label: latents[:1] for label, latents in json.loads(bench.json.read_text()).items()
        }
        bench.json.write_text(json.dumps(one_each))
        paper = SynthesisSettings(num_inference_steps=size.steps)
        fast = SynthesisSettings(**PRESETS["fast"]()["synthesis"])
        bench.published(SynthesisSettings(num_inference_steps=2))  # kernels are chosen
        published = len(LABELS) / self._timed(partial(bench.published, paper))
        rows, count = list[Row](), len(LABELS) * size.ipc
        bench.ours(SynthesisSettings(num_inference_steps=2))
        for name, settings in (("equal steps", paper), ("preset `fast`", fast)):
            rate = count / self._timed(partial(bench.ours, settings))
            share = (
                rate * bench.work_per_image() / self.matrix_rate() if settings is paper else None
            )
            what = f"synthesis, images/s, {size.image_px} px, {name}"
            rows.append(Row(what, published, rate, share, self._peak()))
        return rows

    def labels_and_students(self) -> list[Row]:
        """Label views of the distilled set and train a student on them."""
        size, views = self.size, AugmentationSettings()
        random = np.random.default_rng(0)
        arrays = random.integers(0, 256, (size.images, size.view_px, size.view_px, 3), np.uint8)
        images = ImageSet(
            Spool([arrays], to_pixels, device=self.device),
            (torch.arange(size.images) % size.classes).to(self.device),
        )
        teacher = self._network(0).eval()
        published = self._write_published(arrays)
        kept = SoftLabelSettings(format="float16", augmentation=views)
        drawn = draw_epoch(images, views, seed=0, epoch=0)
        theirs = partial(
            write_published_labels, published, teacher, views, epochs=1, batch_size=size.batch
        )
        label_rate = size.images / self._timed(theirs)
        pack_labels(images, teacher, drawn, kept)
        rate = size.images / self._timed(partial(pack_labels, images, teacher, drawn, kept))
        work = self._flops(teacher) / 2  # the forward pass alone
        rows = [
            Row(
                f"labels, views/s, {size.view_px} px, {size.student}",
                label_rate,
                rate,
                rate * work / self.matrix_rate(torch.float32),
                self._peak(),
            )
        ]
        labels = [EpochLabels(drawn, label_views(images, teacher, drawn))]
        slow = size.images / self._timed(partial(self._train_published, published))
        for precision in ("float32", "bfloat16"):
            train = partial(self._train, images, labels, precision)
            train()
            rate = size.images / self._timed(train)
            most = self.matrix_rate(getattr(torch, precision))
            share = rate * self._flops(teacher) * 1.5 / most
            what = f"students, images/s, {size.view_px} px, {size.student}, {precision}"
            rows.append(Row(what, slow, rate, share, self._peak()))
        return rows

    def students_at_once(self) -> list[Row]:
        """Train nine small students one by one, in the column `published`, and at once."""
        on_cpu = {"size_px": 8, "width": 16, "epochs": 4} if self.device == "cpu" else {}
        comparison = Comparison(StudentsSize(device=self.device, **on_cpu))
        rows = list[Row]()
        for labels, precision in (("hard", "float32"), ("soft", "float32"), ("hard", "bfloat16")):
            found = comparison.compare(labels, "adamw", precision)
            what = f"9 students of convnet3, images/s, {labels} labels, {precision}, one by one"
            rows.append(Row(what, found.one_by_one, found.at_once, None, self._peak()))
        return rows

    def encoding(self) -> list[Row]:
        """Decode JPEG files of 500 x 375 pixels and encode them."""
        from small_pipelines import build_pipeline

        size, files = self.size, self.folder / "files"
        write_jpeg_files(files, size.files)  # of each of two classes, of which one is read
        settings = ImageFolderSettings(
            source="image_folder", path=str(files), size_px=size.image_px, test_share=0.02
        )
        source = ImageFolderSource(settings, files, digests=FileDigests(self.folder))
        vae = build_pipeline(size.pipeline, size.image_px).vae.eval()
        vae.to(self.device, torch.float16 if self.device != "cpu" else torch.float32)
        index = source.index("train", 0)
        few = index.subset(np.arange(max(1, len(index.image_ids) // 10)))

        def encode(chosen: Any, batch_size: int) -> None:
            list(encode_images(source.read_images("train", 0, chosen, batch_size=batch_size), vae))

        encode(few, 16)
        source.in_files = False
        published = len(few.image_ids) / self._timed(partial(encode, few, 1))
        source.in_files = True
        rate = len(index.image_ids) / self._timed(partial(encode, index, 16))
        what = f"encoding, images/s, JPEG files to latents of {size.image_px} px"
        return [Row(what, published, rate, None, self._peak())]

    def _network(self, seed: int) -> nn.Module:
        size = self.size
        return build_classifier(
            ClassifierSettings(architecture=size.student),
            channels=3,
            size_px=size.view_px,
            classes=size.classes,
            seed=seed,
        ).to(self.device)

    def _write_published(self, arrays: np.ndarray) -> PublishedImages:
        for row, image in enumerate(arrays):
            place = self.folder / "png" / f"{row % self.size.classes:04d}" / f"{row:06d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place, compress_level=1)
        return PublishedImages(self.folder / "png", self.folder / "labels", self.size.view_px)

    def _train_published(self, published: PublishedImages) -> None:
        workers = (os.cpu_count() or 1) if self.device != "cpu" else 0
        loader = load_published(published, self.size.batch, workers=workers, device=self.device)
        model, settings = self._network(1), EvaluationSettings()
        train_as_published(model, loader, settings, epochs=1, device=self.device)

    def _train(self, images: ImageSet, labels: list[EpochLabels], precision: str) -> None:
        settings = EvaluationSettings()
        changes = {"batch_size": self.size.batch, "precision": precision}
        optimizer = settings.optimizer.model_copy(update=changes)
        training = Training(epochs=1, optimizer=optimizer, seed=0)
        model = self._network(1)
        train_with_soft_labels(model, images, labels, training, matching=settings.matching)

    def _flops(self, model: nn.Module) -> float:
        """Count the operations of one image, forwards and once as many again."""
        pixels = torch.zeros((1, 3, self.size.view_px, self.size.view_px), device=self.device)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(pixels)
        return 2 * counter.get_total_flops()

    def _timed(self, work: Callable[[], Any]) -> float:
        if self.device != "cpu":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        work()
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def _peak(self) -> float | None:
        return torch.cuda.max_memory_allocated() / 2**30 if self.device != "cpu" else None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=FOLDER)
    return parser.parse_args()


if __name__ == "__main__":
    main()
