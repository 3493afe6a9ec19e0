"""Compare the published procedure, re-written plainly, with ours: same weights, device and steps.

Theirs, as in the authors' gen_syn_image.py: prototypes as JSON text, one image per pipeline call,
the text encoded in every call, a PNG per image. Ours: prototypes from the store, batches across
classes, each text encoded once, arrays into the store. Run it with `make bench-synthesis`;
benchmarks/README.md reports what it printed.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from small_pipelines import build_pipeline
from torch.utils.flop_counter import FlopCounterMode

from d4m.compute import Compute
from d4m.recipe.presets import PRESETS
from d4m.settings import SynthesisSettings
from d4m.store.reference import Unit
from d4m.store.store import ArtifactStore
from d4m.synthesis.samplers import use_scheduler
from d4m.synthesis.synthesize import ImageRequest, synthesize_images

NEGATIVE = "cartoon, anime, painting"
LABELS = (
    "tench",
    "crane",
    "photo",
    "painting",
    "anime",
    "cartoon",
    "a",
    "of",
    "a crane",
    "a tench",
)


def main() -> None:
    """Measure both alternately, and print Markdown."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(arguments, Path(folder))
        rounds = [bench.round() for _ in range(arguments.rounds)]
        print(f"{bench.describe()}\n\n| procedure | images/s | ratio |\n|---|---|---|")
        for name in rounds[0]:
            rate = median(each[name] for each in rounds)
            ratio = median(each[name] / each["published procedure"] for each in rounds)
            print(f"| {name} | {rate:.2f} | {ratio:.1f} |")
        rate = median(each["d4m, equal steps"] for each in rounds)
        work, most = bench.work_per_image() / 1e9, matrix_rate(arguments.device) / 1e9
        print(
            f"\n{work:.2f} GFLOP an image at equal steps, so d4m computes {rate * work:.0f} "
            f"GFLOP/s: {100 * rate * work / most:.0f} % of the {most:.0f} GFLOP/s "
            f"that large matrix products reach on this device"
        )
        if arguments.device != "cpu":
            print(
                f"\npeak memory on the device {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
            )
        print("\n| ten classes | JSON, MB | store, MB | ratio | JSON, s | store, s | ratio |")
        print("|---|---|---|---|---|---|---|")
        for ipc in (10, 50):
            print(_compare_prototypes(Path(folder), ipc))


class Bench:
    """A pipeline and the prototypes to draw, in both forms."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        """Build the pipeline and write the prototypes."""
        half = arguments.device != "cpu"
        self.arguments, self.folder = arguments, folder
        self.compute = Compute(arguments.device, arguments.batch_size)
        self.pipeline = build_pipeline(arguments.size, arguments.image_px)
        self.pipeline.to(arguments.device, torch.float16 if half else torch.float32)
        self.pipeline.set_progress_bar_config(disable=True)
        self.store = ArtifactStore(folder / "store")
        random = np.random.default_rng(0)
        side = self.pipeline.unet.config.sample_size
        shape = (len(LABELS), arguments.ipc, 4, side, side)
        prototypes = random.standard_normal(shape).astype(np.float16)
        self.json = folder / "prototypes.json"
        self.json.write_text(
            json.dumps(dict(zip(LABELS, prototypes.astype(float).tolist(), strict=True)))
        )
        self.keys = [
            _publish(self.store, label, each)
            for label, each in zip(LABELS, prototypes, strict=True)
        ]

    def round(self) -> dict[str, float]:
        """Measure the images per second of each procedure."""
        paper = SynthesisSettings(num_inference_steps=self.arguments.steps)
        fast = SynthesisSettings(**PRESETS["fast"]()["synthesis"])
        count = len(LABELS) * self.arguments.ipc
        return {
            "published procedure": count / _timed(lambda: self.published(paper)),
            "d4m, equal steps": count / _timed(lambda: self.ours(paper)),
            "d4m, preset `fast`": count / _timed(lambda: self.ours(fast)),
        }

    def describe(self) -> str:
        """Return the setting, in words."""
        device = self.arguments.device
        name = (
            torch.cuda.get_device_name()
            if device != "cpu"
            else f"{torch.get_num_threads()} CPU threads"
        )
        return (
            f"{name}, torch {torch.__version__}, pipeline `{self.arguments.size}`, "
            f"{self.arguments.image_px} px, {len(LABELS)} x {self.arguments.ipc} images, "
            f"{self.arguments.steps} steps of which strength 0.7 runs, "
            f"median of {self.arguments.rounds} rounds"
        )

    def work_per_image(self) -> float:
        """Count the floating-point operations of one image at equal steps."""
        settings = SynthesisSettings(num_inference_steps=self.arguments.steps)
        use_scheduler(self.pipeline, settings)
        prototype = self._prototypes(self.keys[0])[0]
        compute = Compute(self.arguments.device, batch_size=1)
        with FlopCounterMode(display=False) as counter:
            list(
                synthesize_images(
                    self.pipeline,
                    [ImageRequest(prototype, LABELS[0], 0)],
                    negative_prompt=NEGATIVE,
                    settings=settings,
                    compute=compute,
                )
            )
        return counter.get_total_flops()

    def published(self, settings: SynthesisSettings) -> None:
        """Draw every image as the published code does."""
        use_scheduler(self.pipeline, settings)
        prototypes = json.loads(self.json.read_text())
        target = self.folder / "png"
        for label, latents in prototypes.items():
            (target / label).mkdir(parents=True)
            for number, latent in enumerate(latents):
                image = torch.tensor(latent, dtype=self.pipeline.dtype, device=self.pipeline.device)
                made: Any = self.pipeline(
                    prompt=[label],
                    image=image[None],
                    strength=settings.strength,
                    guidance_scale=settings.guidance_scale,
                    num_inference_steps=settings.num_inference_steps,
                    negative_prompt=[NEGATIVE],
                )
                made.images[0].save(target / label / f"{number}.png")
        shutil.rmtree(target)

    def ours(self, settings: SynthesisSettings) -> None:
        """Draw every image as d4m does."""
        use_scheduler(self.pipeline, settings)
        store = ArtifactStore(self.folder / "made")
        requests = (
            ImageRequest(prototype, label, row)
            for label, key in zip(LABELS, self.keys, strict=True)
            for row, prototype in enumerate(self._prototypes(key))
        )
        batches = synthesize_images(
            self.pipeline,
            requests,
            negative_prompt=NEGATIVE,
            settings=settings,
            compute=self.compute,
        )
        images = np.concatenate(list(batches))
        for label, made in zip(LABELS, np.split(images, len(LABELS)), strict=True):
            arrays = {"images": made, "decoded_prototypes": made, "seeds": np.arange(len(made))}
            store.publish_arrays(Unit("synthetic_images", "1", label, {"label": label}), arrays, {})
        shutil.rmtree(store.root)

    def _prototypes(self, key: str) -> np.ndarray:
        return self.store.read_arrays("prototypes", key)["prototypes"].astype(np.float32)


def _compare_prototypes(folder: Path, ipc: int) -> str:
    """Compare JSON text with the store, for ten classes of Stable Diffusion's latents at 512 px."""
    random = np.random.default_rng(0)
    path, root = folder / f"prototypes-{ipc}.json", folder / f"store-{ipc}"
    store = ArtifactStore(root)
    centres = {label: random.standard_normal((ipc, 4, 64, 64)) for label in LABELS}
    path.write_text(json.dumps({label: each.tolist() for label, each in centres.items()}))
    keys = [_publish(store, label, each.astype(np.float16)) for label, each in centres.items()]

    def load_json() -> None:
        for latents in json.loads(path.read_text()).values():
            np.array(latents, np.float32)

    def load_store() -> None:
        for key in keys:
            store.read_arrays("prototypes", key)

    text, kept = (min(_timed(load) for _ in range(3)) for load in (load_json, load_store))
    size, kept_size = (
        path.stat().st_size,
        sum(f.stat().st_size for f in root.rglob("*") if f.is_file()),
    )
    return (
        f"| {ipc} each | {size / 1e6:.0f} | {kept_size / 1e6:.1f} | {size / kept_size:.1f} "
        f"| {text:.2f} | {kept:.3f} | {text / kept:.0f} |"
    )


def _publish(store: ArtifactStore, label: str, prototypes: np.ndarray) -> str:
    count = len(prototypes)
    unit = Unit("prototypes", "1", label, {"label": label, "count": count})
    arrays = {
        "prototypes": prototypes,
        "cluster_shares": np.full(count, 1 / count),
        "nearest_images": np.arange(count),
        "inertia": np.array(0.0),
    }
    return store.publish_arrays(unit, arrays, {}).key


def matrix_rate(device: str, dtype: torch.dtype | None = None) -> float:
    """Measure floating-point operations per second of a large matrix product.

    Args:
        device: in torch's words.
        dtype: the number format; None: that of the pipeline on this device. On a GPU, products in
            float32 are computed as convolutions are: in TF32, unless torch is set otherwise.
    """
    on_cpu = device == "cpu"
    side = 1024 if on_cpu else 8192
    dtype = dtype or (torch.float32 if on_cpu else torch.float16)
    factor = torch.randn(side, side, device=device, dtype=dtype)
    products, cudnn = torch.backends.cuda.matmul, cast("Any", torch.backends.cudnn)
    before, products.fp32_precision = products.fp32_precision, cudnn.conv.fp32_precision
    try:
        fastest = min(_timed(lambda: torch.mm(factor, factor)) for _ in range(10))
    finally:
        products.fp32_precision = before
    return 2 * side**3 / fastest


def _timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _arguments() -> argparse.Namespace:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if on_gpu else "cpu")
    parser.add_argument("--size", default="sd15" if on_gpu else "small")
    parser.add_argument("--image-px", type=int, default=512 if on_gpu else 32)
    parser.add_argument("--ipc", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=None)
    return parser.parse_args()


if __name__ == "__main__":
    main()
