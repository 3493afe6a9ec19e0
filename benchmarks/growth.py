"""Calculate how long ImageNet-1K at 50 images per class takes on 1, 8 and 64 GPUs.

Floating point operations are counted on the networks themselves, without weights. Decoding and
digests are measured on one core of this machine, in some seconds. Everything else is a constant
below, marked as measured elsewhere or assumed. docs/explanation/growth.md shows what it prints.

    python benchmarks/growth.py
"""

import hashlib
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from small_pipelines import SIZES, build_autoencoder, build_denoiser
from timm import create_model
from torch.utils.flop_counter import FlopCounterMode

GPUS = (1, 8, 64)
CLASSES, TRAIN, TEST, IPC = 1_000, 1_281_167, 50_000, 50
EPOCHS, EVALUATIONS = 300, 36  # preset `paper`: 35 of 50 steps of PNDM are 36 evaluations
STUDENTS = 9  # three networks, three seeds, each as large as ResNet-18
FILE_BYTES = 110_000
TERA = 1e12


@dataclass(frozen=True)
class Rate:
    """A number that the calculation rests on.

    Attributes:
        what: it is the rate of.
        value: in `unit`.
        unit: of the value.
        source: `counted`, `measured here`, `measured` with a command, or `assumed` with a reason.
    """

    what: str
    value: float
    unit: str
    source: str


@dataclass(frozen=True)
class Stage:
    """The work of a stage.

    Attributes:
        name: of the artifact.
        units: that can be computed at the same time.
        gpu_s: seconds of one GPU, for all units.
        core_s: seconds of one core, for all units.
        read_bytes: that are read from the files of images, for all units.
    """

    name: str
    units: int
    gpu_s: float = 0.0
    core_s: float = 0.0
    read_bytes: float = 0.0

    def hours(self, gpus: int, rates: dict[str, Rate]) -> tuple[float, str]:
        """Return the hours on so many GPUs, and what limits them.

        Everything of a unit overlaps, so that the slowest of its parts counts; what is left over
        when units do not divide evenly does not overlap.
        """
        rounds = math.ceil(self.units / gpus) / self.units
        parts = {
            "GPU": self.gpu_s * rounds,
            "cores": self.core_s * rounds / rates["cores"].value,
            "reading": self.read_bytes * rounds / rates["network"].value,
            "store": self.units * rounds * rates["unit"].value,
        }
        limit = max(parts, key=lambda name: parts[name])
        few = " (too few units)" if self.units < gpus else ""
        return parts[limit] / 3600, limit + few


def main() -> None:
    """Print the rates and the hours."""
    rates = find_rates()
    stages = list_stages(rates)
    print("| rate | value | where it comes from |\n|---|---|---|")
    for rate in rates.values():
        print(f"| {rate.what} | {rate.value:,.4g} {rate.unit} | {rate.source} |")
    heads = " | ".join(f"{gpus} GPU{'s' if gpus > 1 else ''}: hours, limit" for gpus in GPUS)
    print(f"\n| stage | units | GPU hours | core hours | {heads} |\n|---|---|---|---|---|---|---|")
    totals = [0.0] * len(GPUS)
    for stage in stages:
        found = [stage.hours(gpus, rates) for gpus in GPUS]
        totals = [total + hours for total, (hours, _) in zip(totals, found, strict=True)]
        cells = " | ".join(f"{hours:.2f}, {limit}" for hours, limit in found)
        work = f"{stage.gpu_s / 3600:.2f} | {stage.core_s / 3600:.1f}"
        print(f"| {stage.name} | {stage.units:,} | {work} | {cells} |")
    print(f"| together | | | | {' | '.join(f'**{total:.2f}**' for total in totals)} |")


def find_rates() -> dict[str, Rate]:
    """Count, measure and name all rates."""
    unet, encoder, decoder, resnet = count_operations()
    here = "measured here"
    return {
        "unet": Rate("denoiser, one latent, one evaluation", unet / TERA, "TFLOP", "counted"),
        "encoder": Rate("VAE, encoding 512 px", encoder / TERA, "TFLOP", "counted"),
        "decoder": Rate("VAE, decoding 512 px", decoder / TERA, "TFLOP", "counted"),
        "resnet": Rate("ResNet-18, 224 px, forward", resnet / TERA, "TFLOP", "counted"),
        "decode": Rate("JPEG of 500 x 375 to 512 px", _decode_s() * 1e3, "ms of a core", here),
        "digest": Rate("sha256", _digest_s(1_000_000_000), "s of a core per GB", here),
        "kmeans": Rate(
            "k-means of a class, 1,300 latents", 26.9, "s of a core", "measured: `make bench-data`"
        ),
        "large": Rate(
            "denoiser and VAE on a GPU", 300, "TFLOP/s", "assumed: 30 % of an H100's dense rate"
        ),
        "small": Rate(
            "ResNet-18 on a GPU", 100, "TFLOP/s", "assumed: 10 % of that rate, bound by memory"
        ),
        "views": Rate("views of 224 px made on a GPU", 20_000, "per s", "assumed"),
        "cores": Rate("cores for each GPU", 16, "", "assumed"),
        "network": Rate("reading files, for each GPU", 1e9, "bytes/s", "assumed"),
        "unit": Rate("store and scheduling, a unit", 0.05, "s", "assumed: the bar of this project"),
    }


def list_stages(rates: dict[str, Rate]) -> list[Stage]:
    """Return the work of each stage whose work grows with the data."""

    def operations(count: float, part: str, device: str) -> float:
        return count * rates[part].value / rates[device].value

    images, drawn = TRAIN + TEST, CLASSES * IPC
    views = EPOCHS * drawn
    reading = images * FILE_BYTES
    passes = 3 * operations(1, "resnet", "small") + 1 / rates["views"].value
    decode_s = rates["decode"].value / 1e3
    return [
        Stage(
            "real_images",
            CLASSES,
            core_s=reading / 1e9 * rates["digest"].value,
            read_bytes=reading,
        ),
        Stage(
            "latents",
            CLASSES,
            gpu_s=operations(TRAIN, "encoder", "large"),
            core_s=TRAIN * decode_s,
            read_bytes=TRAIN * FILE_BYTES,
        ),
        Stage("prototypes", CLASSES, core_s=CLASSES * rates["kmeans"].value),
        Stage(
            "synthetic_images",
            CLASSES,
            gpu_s=operations(2 * EVALUATIONS * drawn, "unet", "large")
            + operations(drawn, "decoder", "large"),
        ),
        Stage(
            "soft_labels",
            EPOCHS // 50,
            gpu_s=views * (operations(1, "resnet", "small") + 1 / rates["views"].value),
        ),
        Stage("evaluation_scores, synthetic", STUDENTS, gpu_s=STUDENTS * views * passes),
    ]


def count_operations() -> tuple[float, float, float, float]:
    """Return the operations of U-Net, VAE encoder, VAE decoder and ResNet-18 for one image."""
    with torch.device("meta"):
        vae, unet = build_autoencoder(SIZES["sd15"], 512), build_denoiser(SIZES["sd15"], 512)
        resnet = create_model("resnet18")
        latents, text = torch.empty(1, 4, 64, 64), torch.empty(1, 77, 768)
        return (
            _count(lambda: unet(latents, torch.tensor(1), text)),
            _count(lambda: vae.encode(torch.empty(1, 3, 512, 512))),
            _count(lambda: vae.decode(latents)),
            _count(lambda: resnet(torch.empty(1, 3, 224, 224))),
        )


def _count(run: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        run()
    return float(counter.get_total_flops())


def _decode_s(count: int = 60) -> float:
    """Return the seconds of a core to decode a JPEG file like ImageNet's and to squeeze it."""
    coarse = np.random.default_rng(0).integers(0, 256, (47, 63, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(file, "JPEG")
    start = time.process_time()
    for _ in range(count):
        Image.open(io.BytesIO(file.getvalue())).resize((512, 512), Image.Resampling.BILINEAR)
    return (time.process_time() - start) / count


def _digest_s(size: int) -> float:
    """Return the seconds of a core for the sha256 of so many bytes."""
    part = bytes(size // 20)
    start = time.process_time()
    hashlib.sha256(part).digest()
    return 20 * (time.process_time() - start)


if __name__ == "__main__":
    main()
