"""The published training of students with soft labels, re-written plainly.

As in the authors' generate_soft_label.py, utils_fkd.py and train_FKD.py: a PNG per image in class
folders; a file per batch and epoch with crops, flips, CutMix and float16 logits, in the order of a
seeded sampler; a loader that opens, crops, flips and normalises one image at a time.

The published code is slow without need in four places, and this module is not. Workers live as long
as the training (there they start again in every epoch), nothing is printed or measured on the way,
grey images stay grey, and a batch knows its file (there torch itself is patched to find it).
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as transforms
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler
from torchvision.datasets import ImageFolder
from torchvision.transforms import RandomResizedCrop

from d4m.settings import AugmentationSettings, EvaluationSettings

SAMPLER_SEED = 42  # the published code's
Batch = tuple[int, int, list[int]]  # epoch, number in the epoch, rows


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
        path = label_file(self.labels, epoch, number)
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
                coords = draw_crops(augmentation, len(rows), images.size_px)
                flips = torch.rand(len(rows)) < augmentation.flip
                partners, share, box = draw_mix(augmentation, len(rows), images.size_px)
                pixels = cutmix(images.views(rows, coords, flips), partners, box)
                logits = teacher(pixels.to(device)).half().cpu()
                path = label_file(images.labels, epoch, number)
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.save([coords, flips, partners, share, box, logits], path)


def load_published(
    images: PublishedImages, batch_size: int, *, workers: int, device: str
) -> DataLoader[Any]:
    """Return the loader of a training, whose workers live as long as it."""
    return DataLoader(
        images,
        batch_sampler=cast(Any, PublishedOrder(len(images), batch_size)),
        num_workers=workers,
        collate_fn=cast(Any, tuple),
        persistent_workers=workers > 0,
        pin_memory=device != "cpu",
    )


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
            pixels = cutmix(views.to(device), partners, box)
            optimizer.zero_grad()
            output = F.log_softmax(model(pixels) / temperature, dim=1)
            target = F.softmax(logits.to(device).float() / temperature, dim=1)
            loss_function(output, target).backward()
            optimizer.step()
        schedule.step()
    model.eval()


def draw_crops(augmentation: AugmentationSettings, count: int, size_px: int) -> Tensor:
    """Draw crops as shares of the image's edge: top, left, height, width."""
    image, scale = torch.empty(1, size_px, size_px), list(augmentation.crop_scale)
    crops = [RandomResizedCrop.get_params(image, scale, [3 / 4, 4 / 3]) for _ in range(count)]
    return torch.tensor(crops, dtype=torch.float32) / size_px


def draw_mix(
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


def cutmix(pixels: Tensor, partners: Tensor, box: Tensor) -> Tensor:
    """Put the partners' part in the box into a batch, in place."""
    left, right, low, high = box.tolist()
    pixels[:, :, left:right, low:high] = pixels[partners, :, left:right, low:high]
    return pixels


def label_file(folder: Path, epoch: int, number: int) -> Path:
    """Return the path of a batch's labels."""
    return folder / f"epoch_{epoch}" / f"batch_{number}.tar"


def write_pngs(arrays: list[np.ndarray], folder: Path, size_px: int) -> None:
    """Write images, an array per class, as PNG files of a size in class folders."""
    for class_id, images in enumerate(arrays):
        (folder / str(class_id)).mkdir(parents=True)
        for number, image in enumerate(images):
            squeezed = image[..., 0] if image.shape[-1] == 1 else image
            resized = Image.fromarray(squeezed).resize((size_px, size_px), Image.Resampling.BICUBIC)
            resized.save(folder / str(class_id) / f"{number:05d}.png")
