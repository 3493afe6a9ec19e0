"""Compare the path of large data, as it was and as it is: views, labels, reading, prototypes.

How it was is re-written plainly: training sets above 256 MiB read from a file row by row, with
views made a batch at a time; label blocks collected and stacked before they are stored; images
decoded one after the other by the thread that encodes them, whose freed memory the system took
back; k-means on all features of a latent.
Both ways give the same bits, which is checked; scaled JPEG files, which a recipe may ask for, give
nearly the same. Run it with `make bench-data`.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from diffusers import AutoencoderKL
from peak_memory import peak_mib
from PIL import Image
from torch import Tensor, nn

from d4m.compute import keep_freed_memory
from d4m.generators.encode import encode_images
from d4m.images.image_set import ImageSet
from d4m.images.pixels import to_pixels
from d4m.images.spool import Spool
from d4m.prototypes import clusters
from d4m.seeds import stream_generator
from d4m.settings import (
    AugmentationSettings,
    ImageFolderSettings,
    PrototypeSettings,
    SoftLabelSettings,
)
from d4m.sources.file_digests import FileDigests
from d4m.sources.image_folder import ImageFolderSource
from d4m.store.pieces import ArrayPieces, gathered
from d4m.store.reference import Unit
from d4m.store.store import ArtifactStore
from d4m.training.ahead import batches_of_views
from d4m.training.augment import replay_views
from d4m.training.gradients import Gradients
from d4m.training.label_formats import pack_logits
from d4m.training.soft_labels import draw_epoch, label_views, pack_labels

VIEWS = AugmentationSettings()  # the paper's: crops, flips and CutMix
HEAD = "| what | before | now | ratio | the same |\n|---|---|---|---|---|"


def main() -> None:
    """Measure the parts that are asked for, and print a table."""
    arguments = _arguments()
    if arguments.child:
        _label_in_child(*arguments.child)
        return
    print(f"{torch.get_num_threads()} CPU threads, torch {torch.__version__}\n\n{HEAD}")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.only or PARTS:
            PARTS[name](arguments, Path(folder))


class RowByRow(Spool):
    """A training set in a file, of which each row is read by a call of its own."""

    def images(self) -> None:
        """Return None, so that views are made a batch at a time."""

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return the rows with these numbers, converted."""
        gathered_rows = np.empty((len(rows), *self._row.shape[1:]), self._row.dtype)
        assert self._file is not None
        for place, row in enumerate(rows.tolist()):
            self._file.seek(row * self._row.nbytes)
            self._file.readinto(gathered_rows[place].data)
        return to_pixels(torch.from_numpy(gathered_rows))


def _views(arguments: argparse.Namespace, _: Path) -> None:
    """Train a student that is nearly free on an epoch of views of 224 px."""
    count, size_px = arguments.images, 224
    batches = np.array_split(stream_generator(0, "order").permutation(count), -(-count // 128))

    def images(kind: type[Spool]) -> ImageSet:
        random = np.random.default_rng(0)
        rows = (
            random.integers(0, 256, (min(250, count - start), size_px, size_px, 3), dtype=np.uint8)
            for start in range(0, count, 250)
        )
        return ImageSet(kind(rows, to_pixels, largest_in_memory=0), torch.arange(count) % 10)

    def learn(made: Iterator[tuple[Any, Tensor]], class_ids: Tensor) -> Tensor:
        torch.manual_seed(0)
        student = nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(3 * 49, 10))
        gradients, optimizer = Gradients(student, "float32"), torch.optim.SGD(student.parameters())
        for rows, pixels in made:
            own = class_ids[torch.from_numpy(rows)]
            gradients.add(
                pixels,
                lambda logits, part, own=own: nn.functional.cross_entropy(
                    logits, own[part], reduction="none"
                ),
            )
            optimizer.step()
        return torch.cat([weight.detach().flatten() for weight in student.parameters()])

    before, now = images(RowByRow), images(Spool)
    views = draw_epoch(now, VIEWS, seed=0, epoch=0)
    few = batches[: max(1, len(batches) * arguments.share // 100)]
    slow, weights = _timed(
        lambda: learn(((r, replay_views(before.pixels, views, r)) for r in few), before.class_ids)
    )
    fast, same = _timed(lambda: learn(batches_of_views(now, views, few), now.class_ids))
    seen = sum(map(len, few))
    _row(
        f"views/s, {count:,} images of {size_px} px",
        seen / slow,
        seen / fast,
        slow / fast,
        torch.equal(weights, same),
    )


def _labels(_: argparse.Namespace, __: Path) -> None:
    """Label a block of ImageNet's shape, each way in a process of its own, for its peak memory."""
    for format_ in ("float16", "top_k"):
        for epochs in (1, 4):
            found = [
                subprocess.run(
                    [sys.executable, __file__, "--child", way, format_, str(epochs)],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout.split()
                for way in ("before", "now")
            ]
            (before, digest), (now, same) = found
            what = f"peak MB above the images, 50,000 x 1,000 labels, {format_}, blocks of {epochs}"
            _row(what, float(before), float(now), float(before) / float(now), digest == same)


def _label_in_child(way: str, format_: str, epochs: str) -> None:
    """Label a block and print the peak memory above that of the images, and the digest."""
    count, classes = 50_000, 1000
    pixels = torch.rand((count, 3, 8, 8), generator=torch.Generator().manual_seed(0)) * 2 - 1
    images = ImageSet(pixels, torch.arange(count) % classes)
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(12, classes)).eval()
    settings = SoftLabelSettings.model_validate({"format": format_, "augmentation": VIEWS})

    def view(epoch: int) -> Any:
        return draw_epoch(images, VIEWS, seed=0, epoch=epoch)

    label_views(images.pick(torch.arange(2000)), teacher, _first(view(0), 2000))
    base = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    if way == "before":
        packed = [
            pack_logits(label_views(images, teacher, view(epoch)), settings)
            for epoch in range(int(epochs))
        ]
        arrays: Any = {name: np.stack([each[name] for each in packed]) for name in packed[0]}
    else:
        rows = (pack_labels(images, teacher, view(e), settings) for e in range(int(epochs)))
        arrays = ArrayPieces(int(epochs), gathered(rows))
    with tempfile.TemporaryDirectory() as folder:
        unit = Unit("soft_labels", "4", "block", {"way": way})
        reference = ArtifactStore(Path(folder)).publish_arrays(unit, arrays, {})
    print((peak_mib() * 2**20 - base) / 1e6, reference.digest)


def _first(views: Any, count: int) -> Any:
    """Return the first views, without partners beyond them."""
    fields = {name: array[:count] for name, array in vars(views).items() if array is not None}
    return type(views)(**(fields | {"partners": fields["partners"] % count}))


def _reading(arguments: argparse.Namespace, folder: Path) -> None:
    """Decode JPEG files of 500 x 375 pixels and encode them by a tiny autoencoder."""
    write_jpeg_files(folder / "files", arguments.files)
    settings = ImageFolderSettings(
        source="image_folder", path=str(folder / "files"), size_px=256, test_share=0.5
    )
    source = ImageFolderSource(settings, folder / "files", digests=FileDigests(folder))
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        norm_num_groups=2,
        layers_per_block=1,
    ).eval()
    indexes = [source.index("train", class_id) for class_id in range(2)]

    def encode() -> np.ndarray:
        found = list[np.ndarray]()
        for class_id, index in enumerate(indexes):
            batches = source.read_images("train", class_id, index, batch_size=64)
            found += list(encode_images(batches, vae))
        return np.concatenate(found)

    encode()  # the files are in the system's memory from here on
    source.in_files = False
    slow, wanted = _timed(encode)
    source.in_files = True
    keep_freed_memory()  # as every command does
    fast, latents = _timed(encode)
    what = f"images/s, {len(latents):,} JPEG files of 500 x 375 to latents of 256 px"
    same = np.array_equal(wanted, latents)
    _row(what, len(latents) / slow, len(latents) / fast, slow / fast, same)


def _photographs(_: argparse.Namespace, folder: Path) -> None:
    """Read JPEG files of 12 megapixels at 512 px, whole and scaled (`dataset.jpeg`)."""
    write_jpeg_files(folder / "photographs", 8, (4000, 3000))
    found = dict[str, np.ndarray]()
    seconds = dict[str, float]()
    for jpeg in ("full", "scaled"):
        settings = ImageFolderSettings.model_validate(
            {"source": "image_folder", "path": ".", "test_share": 0.5, "jpeg": jpeg}
        )
        source = ImageFolderSource(settings, folder / "photographs", digests=FileDigests(folder))
        index = source.index("train", 0)
        seconds[jpeg], found[jpeg] = _timed(partial(source.read_all, "train", 0, index))
    apart = np.abs(found["full"].astype(int) - found["scaled"])
    slow, fast = (len(found[jpeg]) / seconds[jpeg] for jpeg in ("full", "scaled"))
    what = "images/s, JPEG files of 4000 x 3000 to 512 px, `jpeg: full` and `scaled`"
    _row(
        what,
        slow,
        fast,
        fast / slow,
        f"{apart.mean():.2f} of 255 levels apart, at most {apart.max()}",
    )


def write_jpeg_files(folder: Path, count: int, size: tuple[int, int] = (500, 375)) -> None:
    """Write two classes of so many JPEG files each, of a width and a height."""
    random = np.random.default_rng(0)
    for number in range(2 * count):  # half of each class is held out
        place = folder / ("ant", "bee")[number % 2] / f"{number:05d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.int16)
        noise = random.integers(-12, 13, smooth.shape, dtype=np.int16)
        Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8)).save(place, quality=90)


def _prototypes(arguments: argparse.Namespace, _: Path) -> None:
    """Cluster classes of 1,300 latents of 4 x 64 x 64 into 50 prototypes each."""
    settings = PrototypeSettings(ipc=50)
    random = np.random.default_rng(0)
    shapes = random.normal(size=(80, 4, 64, 64))
    classes = [
        (shapes[random.integers(0, 80, 1300)] * 0.5 + random.normal(size=(1300, 4, 64, 64))).astype(
            np.float16
        )
        for _ in range(arguments.classes)
    ]

    def fit() -> list[clusters.PrototypeResult]:
        return [clusters.fit_prototypes(each, settings, seed=0) for each in classes]

    fast, found = _timed(fit)
    with ExitStack() as plain:
        for name, function in _PLAIN_CLUSTERS.items():
            plain.enter_context(mock.patch.object(clusters, name, function))
        slow, wanted = _timed(fit)
    same = all(
        np.array_equal(one.clusters, other.clusters)
        and np.array_equal(one.nearest_images, other.nearest_images)
        and abs(one.inertia / other.inertia - 1) < 1e-9
        for one, other in zip(found, wanted, strict=True)
    )
    what = "seconds per class, k-means of 1,300 latents of 4 x 64 x 64, 50 prototypes"
    _row(what, slow / len(classes), fast / len(classes), slow / fast, same)


def _nearest_by_subtraction(
    points: np.ndarray, centres: np.ndarray, *, distinct: bool = False
) -> np.ndarray:
    assert not distinct, "medoids are not measured"
    return np.array([((points - centre) ** 2).sum(axis=1).argmin() for centre in centres])


_PLAIN_CLUSTERS: dict[str, Callable[..., Any]] = {
    "is_worth_rotating": lambda _: False,
    "nearest_rows": _nearest_by_subtraction,
    "count_distinct": lambda points, most: len(np.unique(points, axis=0)),  # noqa: ARG005
    "_inertia": lambda points, all_, own: float(((points - all_[own]) ** 2).sum()),
}


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _row(what: str, before: float, now: float, ratio: float, same: bool | str) -> None:
    verdict = same if isinstance(same, str) else "yes" if same else "NO"
    print(f"| {what} | {before:.1f} | {now:.1f} | {ratio:.1f} | {verdict} |", flush=True)


PARTS = {
    "views": _views,
    "labels": _labels,
    "photographs": _photographs,
    "prototypes": _prototypes,
    "reading": _reading,  # the last, as it changes how this process allocates
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=[*PARTS], help="may be repeated")
    parser.add_argument("--images", type=int, default=10_000, help="in the training set")
    parser.add_argument("--share", type=int, default=100, help="percent of them that are seen")
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=3, help="that are clustered")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
