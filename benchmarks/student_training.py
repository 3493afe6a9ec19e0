"""Compare student training with soft labels: the published loop, re-written plainly, and ours.

Theirs is published_training.py: a PNG per image, a label file per batch and epoch, a loader that
opens, crops, flips and normalises one image at a time. Ours: arrays, views drawn again from their
seeds, made on the device of the student. Both train the same students on the same images with the
same teacher, number of steps and optimizer. Run it with `make bench-students`; benchmarks/README.md
reports what it printed.

The published code writes images of 224 px for every data set. That is measured. Files of the data
set's own size are measured too, which is more than fair to it.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np
import torch
from label_sizes import FORMATS, compare_sizes, count_bytes, write_labels
from published_training import PublishedImages, cutmix, load_published, train_as_published
from student_material import PUBLISHED_PX, Material
from torch import nn
from torch.utils.data import DataLoader

from d4m.scores.accuracy import score_classifier
from d4m.seeds import stream_generator, stream_seed
from d4m.settings import StudentSettings
from d4m.training.augment import replay_views
from d4m.training.train import Training, train_with_soft_labels

NARROW: dict[str, Any] = {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128)}
STUDENTS = (
    StudentSettings(name="convnet3"),
    StudentSettings(name="resnet10_narrow", architecture="resnet18", options=NARROW),
)


def main() -> None:
    """Measure speed, accuracy and labels, and print Markdown."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(arguments, Path(folder))
        print(
            f"{bench.describe()}\n\n| student | loop | images/s | ratio | CPU ms/image | top-1 % |"
        )
        print("|---|---|---|---|---|---|")
        bench.compare_views()
        published = [bench.compare_students(student) for student in STUDENTS]
        if arguments.speed_only:
            return
        print("\n| labels | labelled epochs | bytes | times smaller | top-1 % | to float16 |")
        print("|---|---|---|---|---|---|")
        bench.compare_labels(STUDENTS[-1], published[-1])
        print("\n| labels of 1,000 classes | bytes per image and epoch | times smaller |")
        print("|---|---|---|")
        compare_sizes(Path(folder) / "sizes", images=10_240, classes=1000, batch_size=1024)


class Speed(NamedTuple):
    """The speed of a way of training, by the clock and by the processors' time."""

    images_per_s: float
    processor_ms: float


class Bench(Material):
    """The ways of training, measured on the same images, teacher and labels."""

    def describe(self) -> str:
        """Return the setting, in words."""
        threads = f"{torch.get_num_threads()} CPU threads"
        return (
            f"{threads if self.device == 'cpu' else torch.cuda.get_device_name()}, "
            f"torch {torch.__version__}, `{self.arguments.recipe}`: {len(self.images)} images of "
            f"{self.images.size_px} px, {self.epochs} epochs, batches of {self.batch_size}, "
            f"{self.arguments.seeds} seeds, run alternately, {len(self.test)} test images, teacher "
            f"{self._top1(self.teacher):.2f} %"
        )

    def compare_views(self) -> None:
        """Print rows of the first table: the cost of views and labels, without a student."""
        ways: dict[str, Callable[[], None]] = {
            name: partial(self._view_published, *way) for name, way in self._ways().items()
        }
        rounds = [
            {name: self._measure(view) for name, view in (ways | {"d4m": self._view_ours}).items()}
            for _ in range(self.arguments.seeds)
        ]
        _print_speed("none, views only", rounds, {})

    def compare_students(self, student: StudentSettings) -> float:
        """Print one student's rows of the first table; return the published loop's top-1."""
        ways: dict[str, Callable[[nn.Module, int], None]] = {
            name: partial(self._train_published, *way) for name, way in self._ways().items()
        }
        ways["d4m"] = partial(self._train_ours, self.folder / "labels", "float32")
        ways["d4m, bfloat16"] = partial(self._train_ours, self.folder / "labels", "bfloat16")
        rounds, top1 = list[dict[str, Speed]](), dict[str, list[float]]()
        for seed in range(self.arguments.seeds):
            models = {name: self.build(student, seed) for name in ways}
            rounds.append(
                {name: self._measure(partial(ways[name], models[name], seed)) for name in ways}
            )
            for name, model in models.items():
                top1.setdefault(name, []).append(self._top1(model))
        means = {name: fmean(values) for name, values in top1.items()}
        _print_speed(student.label, rounds, means)
        return means[next(iter(ways))]

    def compare_labels(self, student: StudentSettings, published_top1: float) -> None:
        """Print the second table: every format, for all, a fifth and a tenth of the epochs."""
        published, exact = count_bytes(self.published.labels), None
        print(f"| published | {self.epochs} | {published:,} | 1.0 | {published_top1:.2f} | |")
        for share in (1, 5, 10):
            epochs = -(-self.epochs // share)
            for name, settings in FORMATS.items():
                folder = self.folder / f"{name}-{epochs}"
                write_labels(folder, self.logits[:epochs], settings)
                size, top1 = count_bytes(folder), self._mean_top1(student, folder)
                exact = top1 if exact is None else exact
                print(
                    f"| d4m, {name} | {epochs} | {size:,} | {published / size:.1f} | {top1:.2f} "
                    f"| {top1 - exact:+.2f} |",
                    flush=True,
                )

    def _ways(self) -> dict[str, tuple[PublishedImages, int]]:
        """Return the published loop's variants: names, files and numbers of workers."""
        return {
            f"published, {size} px files, {count or 'no'} workers": (files, count)
            for size, files in (
                (PUBLISHED_PX, self.enlarged),
                (self.images.size_px, self.published),
            )
            for count in (0, self.arguments.workers)
        }

    def _loader(self, published: PublishedImages, workers: int) -> DataLoader[Any]:
        return load_published(published, self.batch_size, workers=workers, device=self.device)

    def _view_published(self, published: PublishedImages, workers: int) -> None:
        loader = self._loader(published, workers)
        for _ in range(self.epochs):
            for views, partners, box, _ in loader:
                cutmix(views.to(self.device), partners, box)

    def _view_ours(self) -> None:
        for epoch, label in enumerate(self.read_labels(self.folder / "labels")):
            order = stream_generator(0, epoch).permutation(len(self.images))
            for rows in np.array_split(order, -(-len(order) // self.batch_size)):
                replay_views(self.images.pixels, label.views, rows)

    def _train_published(
        self,
        published: PublishedImages,
        workers: int,
        model: nn.Module,
        seed: int,  # noqa: ARG002
    ) -> None:
        train_as_published(
            model,
            self._loader(published, workers),
            self.settings.evaluation,
            epochs=self.epochs,
            device=self.device,
        )

    def _train_ours(self, folder: Path, precision: str, model: nn.Module, seed: int) -> None:
        settings = self.settings.evaluation
        changes = {"batch_size": self.batch_size, "precision": precision}
        train_with_soft_labels(
            model,
            self.images,
            self.read_labels(folder),
            Training(
                epochs=self.epochs,
                optimizer=settings.optimizer.model_copy(update=changes),
                seed=stream_seed(seed, "order"),
            ),
            matching=settings.matching,
        )

    def _mean_top1(self, student: StudentSettings, folder: Path) -> float:
        models = [self.build(student, seed) for seed in range(self.arguments.seeds)]
        for seed, model in enumerate(models):
            self._train_ours(folder, "float32", model, seed)
        return fmean(self._top1(model) for model in models)

    def _top1(self, model: nn.Module) -> float:
        return 100 * score_classifier(model, self.test.pixels, self.test.class_ids).top1

    def _measure(self, work: Callable[[], None]) -> Speed:
        start, used = time.perf_counter(), _processor_seconds()
        work()
        if self.device != "cpu":
            torch.cuda.synchronize()
        views = len(self.images) * self.epochs
        seconds, used = time.perf_counter() - start, _processor_seconds() - used
        return Speed(views / seconds, 1000 * used / views)


def _print_speed(student: str, rounds: list[dict[str, Speed]], top1: Mapping[str, float]) -> None:
    first = next(iter(rounds[0]))
    for name in rounds[0]:
        rate = median(each[name].images_per_s for each in rounds)
        ratio = median(each[name].images_per_s / each[first].images_per_s for each in rounds)
        used = median(each[name].processor_ms for each in rounds)
        score = f"{top1[name]:.2f}" if top1 else ""
        print(
            f"| {student} | {name} | {rate:.0f} | {ratio:.2f} | {used:.3f} | {score} |", flush=True
        )


def _processor_seconds() -> float:
    """Return the processor time of this process and of workers that have ended."""
    return sum(os.times()[:4])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--fashion-mnist",
        dest="recipe",
        action="store_const",
        const="fashion_mnist",
        default="digits",
        help="28 px instead of the digits' 8 px",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--images-per-class", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--speed-only", action="store_true", help="only the first table")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--teacher-epochs", type=int, default=20)
    parser.add_argument("--teacher-per-class", type=int, default=300, help="images it sees")
    parser.add_argument("--test-per-class", type=int, default=1000, help="images, at most")
    return parser.parse_args()


if __name__ == "__main__":
    main()
