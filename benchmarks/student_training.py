"""Compare student training with soft labels: the published loop, re-written plainly, and ours.

Theirs, as in the authors' generate_soft_label.py, utils_fkd.py and train_FKD.py: a PNG per image in
class folders; a file per batch and epoch with crops, flips, CutMix and float16 logits, in the order
of a seeded sampler; a loader that opens, crops, flips and normalises one image at a time. Ours:
arrays, views drawn again from their seeds, made on the device of the student. Both
train the same students on the same images with the same teacher, number of steps and optimizer.
Run it with `make bench-students`; benchmarks/README.md reports what it printed.

The published code writes images of 224 px for every data set. That is measured. Files of the data
set's own size are measured too, which is more than fair to it.

The published code is slow without need in four places, and this script is not. Workers live as long
as the training (there they start again in every epoch), nothing is printed or measured on the way,
grey images stay grey, and a batch knows its file (there torch itself is patched to find it).
"""

import argparse
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as transforms
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler
from torchvision.datasets import ImageFolder
from torchvision.transforms import RandomResizedCrop

from d4m.classifiers.registry import build_classifier
from d4m.environment import find_recipe
from d4m.images.image_set import ImageSet
from d4m.images.pixels import to_pixels
from d4m.scores.accuracy import score_classifier
from d4m.seeds import stream_generator, stream_seed
from d4m.settings import (
    AugmentationSettings,
    ClassifierSettings,
    EvaluationSettings,
    SoftLabelSettings,
    StudentSettings,
)
from d4m.sources.base import ImageSource, Split
from d4m.sources.registry import open_source
from d4m.store.layout import read_group, write_group
from d4m.training.augment import Views, replay_views
from d4m.training.label_formats import pack_logits, unpack_logits
from d4m.training.soft_labels import EpochLabels, draw_epoch, label_views
from d4m.training.train import Training, train_with_hard_labels, train_with_soft_labels

PUBLISHED_PX = 224
SAMPLER_SEED = 42  # the published code's
_LABEL_SEED = stream_seed(0, "soft_labels")
NARROW: dict[str, Any] = {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128)}
STUDENTS = (
    StudentSettings(name="convnet3"),
    StudentSettings(name="resnet10_narrow", architecture="resnet18", options=NARROW),
)
FORMATS: dict[str, dict[str, Any]] = {
    "float16": {"format": "float16"},
    "uint8": {"format": "uint8"},
    **{f"top_k {k}": {"format": "top_k", "top_k": k} for k in (5, 3, 2)},
}
Batch = tuple[int, int, list[int]]  # epoch, number in the epoch, rows


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


class PublishedOrder:
    """The batches of rows per epoch, from the one sampler that labels and students share."""

    def __init__(self, images: int, batch_size: int) -> None:
        """Start at the first epoch."""
        self.images, self.batch_size, self.epoch = images, batch_size, 0
        generator = torch.Generator().manual_seed(SAMPLER_SEED)
        self.sampler = RandomSampler(range(images), generator=generator)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return math.ceil(self.images / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the next epoch's batches."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        rows = list(self.sampler)
        for number, start in enumerate(range(0, len(rows), self.batch_size)):
            yield epoch, number, rows[start : start + self.batch_size]


class PublishedImages(ImageFolder):
    """A data set of PNG and label files, read one image at a time, as their ImageFolder_FKD_MIX.

    Args:
        root: class folders of PNG files, of any size.
        labels: folders of epochs with a file per batch.
        size_px: height and width of the views.
    """

    def __init__(self, root: Path, labels: Path, size_px: int) -> None:
        """List the files."""
        super().__init__(str(root), loader=Image.open)
        self.labels, self.size_px = labels, size_px

    def __getitems__(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return views, CutMix partners, box and logits of a whole batch."""
        epoch, number, rows = batch
        path = _label_file(self.labels, epoch, number)
        coords, flips, partners, _, box, logits = torch.load(path, weights_only=True)
        return self.views(rows, coords, flips), partners, box, logits

    def views(self, rows: list[int], coords: Tensor, flips: Tensor) -> Tensor:
        """Read some images, before CutMix."""
        crops = zip(rows, coords.tolist(), flips.tolist(), strict=True)
        return torch.stack([self._view(row, crop, flip) for row, crop, flip in crops])

    def _view(self, row: int, crop: list[float], flip: bool) -> Tensor:
        image: Any = self.loader(self.samples[row][0])  # torchvision types PIL's images as tensors
        size = [self.size_px, self.size_px]
        top, left, height, width = (round(share * image.height) for share in crop)
        image = transforms.resized_crop(image, top, left, height, width, size)
        if flip:
            image = transforms.hflip(image)
        half = [0.5] * len(image.getbands())
        return transforms.normalize(transforms.to_tensor(image), half, half)


def write_published_labels(
    images: PublishedImages,
    teacher: nn.Module,
    augmentation: AugmentationSettings,
    *,
    epochs: int,
    batch_size: int,
) -> None:
    """Read the images in a student's order, and write a label file per batch: their `save`."""
    order = PublishedOrder(len(images), batch_size)
    device = next(teacher.parameters()).device
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.default_generator.manual_seed(SAMPLER_SEED)
        for _ in range(epochs):
            for epoch, number, rows in order:
                coords = _draw_crops(augmentation, len(rows), images.size_px)
                flips = torch.rand(len(rows)) < augmentation.flip
                partners, share, box = _draw_mix(augmentation, len(rows), images.size_px)
                pixels = _cutmix(images.views(rows, coords, flips), partners, box)
                logits = teacher(pixels.to(device)).half().cpu()
                path = _label_file(images.labels, epoch, number)
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.save([coords, flips, partners, share, box, logits], path)


def train_as_published(
    model: nn.Module,
    loader: DataLoader[Any],
    settings: EvaluationSettings,
    *,
    epochs: int,
    device: str,
) -> None:
    """Train with AdamW, a cosine over epochs and KL of softened softmaxes: their `train`."""
    temperature = settings.matching.temperature
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.optimizer.learning_rate,
        weight_decay=settings.optimizer.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda epoch: 0.5 * (1 + math.cos(math.pi * epoch / epochs))
    )
    loss_function = nn.KLDivLoss(reduction="batchmean")
    model.train()
    for _ in range(epochs):
        for views, partners, box, logits in loader:
            pixels = _cutmix(views.to(device), partners, box)
            optimizer.zero_grad()
            output = F.log_softmax(model(pixels) / temperature, dim=1)
            target = F.softmax(logits.to(device).float() / temperature, dim=1)
            loss_function(output, target).backward()
            optimizer.step()
        schedule.step()
    model.eval()


class Speed(NamedTuple):
    """The speed of a way of training, by the clock and by the processors' time."""

    images_per_s: float
    processor_ms: float


class Bench:
    """The images, a teacher and its labels, in both forms."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        """Train the teacher, and write images and labels."""
        self.arguments, self.folder, self.device = arguments, folder, arguments.device
        self.settings = find_recipe(arguments.recipe).settings
        self.augmentation = self.settings.soft_labels.augmentation
        self.epochs, self.batch_size = arguments.epochs, arguments.batch_size
        source = open_source(find_recipe(arguments.recipe), folder)
        arrays = _read(source, "train", arguments.images_per_class)
        self.images = _image_set(arrays, self.device)
        self.test = _image_set(_read(source, "test", arguments.test_per_class), self.device)
        self.teacher = self._train_teacher(source)
        self.logits = np.stack(
            [
                label_views(self.images, self.teacher, self._views(epoch))
                for epoch in range(self.epochs)
            ]
        )
        write_labels(folder / "labels", self.logits, FORMATS["float16"])
        self.published = self._publish(arrays, self.images.size_px)
        self.enlarged = self._publish(arrays, PUBLISHED_PX)

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
            models = {name: self._build(student, seed) for name in ways}
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
        published, exact = _bytes(self.published.labels), None
        print(f"| published | {self.epochs} | {published:,} | 1.0 | {published_top1:.2f} | |")
        for share in (1, 5, 10):
            epochs = -(-self.epochs // share)
            for name, settings in FORMATS.items():
                folder = self.folder / f"{name}-{epochs}"
                write_labels(folder, self.logits[:epochs], settings)
                size, top1 = _bytes(folder), self._mean_top1(student, folder)
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

    def _publish(self, arrays: list[np.ndarray], size_px: int) -> PublishedImages:
        """Write images and labels into files, as the published code has them."""
        folder = self.folder / f"published-{size_px}"
        _write_pngs(arrays, folder / "png", size_px)
        published = PublishedImages(folder / "png", folder / "labels", self.images.size_px)
        write_published_labels(
            published,
            self.teacher,
            self.augmentation,
            epochs=self.epochs,
            batch_size=self.batch_size,
        )
        return published

    def _views(self, epoch: int) -> Views:
        return draw_epoch(self.images, self.augmentation, seed=_LABEL_SEED, epoch=epoch)

    def _train_teacher(self, source: ImageSource) -> nn.Module:
        settings = self.settings.teacher
        images = _image_set(_read(source, "train", self.arguments.teacher_per_class), self.device)
        teacher = self._build(settings, seed=0)
        train_with_hard_labels(
            teacher,
            images,
            Training(epochs=self.arguments.teacher_epochs, optimizer=settings.optimizer, seed=0),
            augmentation=settings.augmentation,
        )
        return teacher

    def _build(self, network: ClassifierSettings, seed: int) -> nn.Module:
        return build_classifier(
            network,
            channels=self.images.pixels.shape[1],
            size_px=self.images.size_px,
            classes=_classes(self.images),
            seed=stream_seed(seed, "weights"),
        ).to(self.device)

    def _loader(self, published: PublishedImages, workers: int) -> DataLoader[Any]:
        return DataLoader(
            published,
            batch_sampler=cast(Any, PublishedOrder(len(self.images), self.batch_size)),
            num_workers=workers,
            collate_fn=cast(Any, tuple),
            persistent_workers=workers > 0,
            pin_memory=self.device != "cpu",
        )

    def _view_published(self, published: PublishedImages, workers: int) -> None:
        loader = self._loader(published, workers)
        for _ in range(self.epochs):
            for views, partners, box, _ in loader:
                _cutmix(views.to(self.device), partners, box)

    def _view_ours(self) -> None:
        for epoch, label in enumerate(self._read_labels(self.folder / "labels")):
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
            self._read_labels(folder),
            Training(
                epochs=self.epochs,
                optimizer=settings.optimizer.model_copy(update=changes),
                seed=stream_seed(seed, "order"),
            ),
            matching=settings.matching,
        )

    def _read_labels(self, folder: Path) -> list[EpochLabels]:
        """Read stored logits, and draw their views again from the seeds."""
        blocks = [read_group(path, "soft_labels") for path in sorted(folder.iterdir())]
        logits = np.concatenate([unpack_logits(each, _classes(self.images)) for each in blocks])
        return [EpochLabels(self._views(epoch), each) for epoch, each in enumerate(logits)]

    def _mean_top1(self, student: StudentSettings, folder: Path) -> float:
        models = [self._build(student, seed) for seed in range(self.arguments.seeds)]
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
            coords = _draw_crops(AugmentationSettings(), len(batch), 224)
            flips = torch.rand(len(batch)) < 0.5
            mix = _draw_mix(AugmentationSettings(), len(batch), 224)
            path = _label_file(folder / "published", 0, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save([coords, flips, *mix, batch], path)
    published = _bytes(folder / "published")
    print(f"| published | {published / images:.1f} | 1.0 |")
    for name, settings in FORMATS.items():
        write_labels(folder / name, logits, settings)
        size = _bytes(folder / name)
        print(f"| d4m, {name} | {size / images:.1f} | {published / size:.1f} |")


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


def _draw_crops(augmentation: AugmentationSettings, count: int, size_px: int) -> Tensor:
    """Draw crops as shares of the image's edge: top, left, height, width."""
    image, scale = torch.empty(1, size_px, size_px), list(augmentation.crop_scale)
    crops = [RandomResizedCrop.get_params(image, scale, [3 / 4, 4 / 3]) for _ in range(count)]
    return torch.tensor(crops, dtype=torch.float32) / size_px


def _draw_mix(
    augmentation: AugmentationSettings, count: int, size_px: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw partners, own share and box of a batch's CutMix; some batches have none."""
    partners, share = torch.randperm(count), torch.rand(())
    if torch.rand(()) >= augmentation.cutmix:
        return partners, torch.ones(()), torch.zeros(4, dtype=torch.int64)
    half = int(size_px * math.sqrt(1 - share)) // 2
    x, y = torch.randint(size_px, (2,)).tolist()
    box = torch.tensor([x - half, x + half, y - half, y + half]).clamp(0, size_px)
    return partners, share, box


def _cutmix(pixels: Tensor, partners: Tensor, box: Tensor) -> Tensor:
    left, right, low, high = box.tolist()
    pixels[:, :, left:right, low:high] = pixels[partners, :, left:right, low:high]
    return pixels


def _label_file(folder: Path, epoch: int, number: int) -> Path:
    return folder / f"epoch_{epoch}" / f"batch_{number}.tar"


def _read(source: ImageSource, split: Split, per_class: int) -> list[np.ndarray]:
    """Read random images of every class, or all if there are too few."""
    arrays = list[np.ndarray]()
    for class_id in range(len(source.class_table)):
        index = source.index(split, class_id)
        order = stream_generator(0, split, class_id).permutation(len(index.image_ids))
        arrays.append(source.read_all(split, class_id, index.subset(order[:per_class])))
    return arrays


def _image_set(arrays: list[np.ndarray], device: str) -> ImageSet:
    class_ids = np.repeat(np.arange(len(arrays)), [len(images) for images in arrays])
    pixels = to_pixels(np.concatenate(arrays)).to(device)
    return ImageSet(pixels, torch.from_numpy(class_ids).to(device))


def _classes(images: ImageSet) -> int:
    return int(images.class_ids.max()) + 1


def _write_pngs(arrays: list[np.ndarray], folder: Path, size_px: int) -> None:
    for class_id, images in enumerate(arrays):
        (folder / str(class_id)).mkdir(parents=True)
        for number, image in enumerate(images):
            squeezed = image[..., 0] if image.shape[-1] == 1 else image
            resized = Image.fromarray(squeezed).resize((size_px, size_px), Image.Resampling.BICUBIC)
            resized.save(folder / str(class_id) / f"{number:05d}.png")


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


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
