"""Time and peak memory of every stage over folders of different sizes, with a tiny pipeline.

100 and 1,000 classes of 50 JPEG files of random colours each, a Stable Diffusion pipeline of a few
channels with random weights, one image per class unless `--ipc` says more. A folder is run in a
process of its own, whose peak of memory is reset before each stage, which Linux allows. Run it with
`make bench-scale`; benchmarks/README.md reports what it printed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from peak_memory import peak_mib
from PIL import Image
from small_pipelines import save_pipeline

from d4m.compute import Compute
from d4m.pipeline import STAGES, Pipeline
from d4m.recipe.recipe import load_recipe

RECIPE = """\
dataset: {{source: image_folder, path: {images}, size_px: {size_px}}}
generator: {{pretrained: {{model: {model}}}}}
prototypes: {{ipc: {ipc}}}
synthesis: {{num_inference_steps: 4}}
teacher:
  architecture: resnet18
  epochs: 1
  options: &narrow {{layers: [1, 1, 1, 1], channels: [8, 8, 16, 16]}}
soft_labels: {{epochs: 4, epochs_per_block: 2}}
evaluation:
  students: [{{architecture: resnet18, options: *narrow}}]
  seeds: 1
  full_data: {{epochs: 1}}
"""
Measured = dict[str, tuple[float, float]]
"""Stage -> CPU seconds, and peak memory in MiB."""


def main() -> None:
    """Run the sizes in processes of their own, and print Markdown."""
    arguments = _arguments()
    if arguments.child:
        _run_stages(*map(Path, arguments.child))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_pipeline(folder / "model", "tiny", arguments.size_px)
        print("| files | classes | CPU s | per 1,000 | peak memory, MiB |\n|---|---|---|---|---|")
        found = list[Measured]()
        for classes in arguments.classes:
            files = classes * arguments.files
            pictures = folder / str(classes)
            write_images(pictures, classes, files=arguments.files, file_px=arguments.file_px)
            found.append(_run(folder, classes, arguments.size_px, arguments.ipc))
            seconds = sum(own for own, _ in found[-1].values())
            peak = max(mib for _, mib in found[-1].values())
            each = 1000 * seconds / files
            print(f"| {files:,} | {classes:,} | {seconds:.0f} | {each:.2f} | {peak:.0f} |")
        _print_stages(arguments.classes, found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--files", type=int, default=50, help="per class")
    parser.add_argument("--file-px", type=int, default=32, help="of each file")
    parser.add_argument("--size-px", type=int, default=16, help="to which images are read")
    parser.add_argument("--ipc", type=int, default=1, help="images per class")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def _print_stages(sizes: list[int], found: list[Measured]) -> None:
    """Print a row per stage; the last column compares the largest size with the smallest."""
    heads = [f"{size:,} classes, {what}" for what in ("s", "MiB") for size in sizes]
    print(f"\n| stage | {' | '.join(heads)} | MiB, ratio |\n|{'---|' * (len(heads) + 2)}")
    for stage in found[0]:
        seconds = [f"{each[stage][0]:.1f}" for each in found]
        mib = [each[stage][1] for each in found]
        cells = [*seconds, *(f"{each:.0f}" for each in mib), f"{mib[-1] / mib[0]:.2f}"]
        print(f"| {stage} | {' | '.join(cells)} |")


def write_images(folder: Path, classes: int, *, files: int = 50, file_px: int = 32) -> None:
    """Write small JPEG files of random colours into a folder for each class."""
    random = np.random.default_rng(0)
    edge = (file_px, file_px)
    for class_id in range(classes):
        target = folder / f"{class_id:04d}"
        target.mkdir(parents=True)
        for number in range(files):
            pixels = random.integers(0, 256, (4, 4, 3)).astype(np.uint8)
            Image.fromarray(pixels).resize(edge).save(target / f"{number}.jpg")


def _run(folder: Path, classes: int, size_px: int, ipc: int) -> Measured:
    """Run all stages in a new store and a process of its own."""
    recipe = folder / f"classes_{classes}.yaml"
    images, model = folder / str(classes), folder / "model"
    recipe.write_text(RECIPE.format(images=images, model=model, size_px=size_px, ipc=ipc))
    command = [sys.executable, __file__, "--child", recipe, folder / f"store-{classes}"]
    printed = subprocess.run(command, env=os.environ, stdout=subprocess.PIPE, check=True).stdout
    rows = [json.loads(line) for line in printed.decode().splitlines() if line.startswith("[")]
    return {stage: (seconds, mib) for stage, seconds, mib in rows}


def _run_stages(recipe: Path, store: Path) -> None:
    """Run every stage, and print its name, CPU seconds and peak of memory as JSON."""
    pipeline = Pipeline(load_recipe(recipe), store, Compute("cpu"))
    before = 0.0  # what Python and torch take to start belongs to the first stage
    for stage, _ in zip(STAGES, pipeline.run(), strict=True):
        seconds = time.process_time()
        print(json.dumps([stage.name, seconds - before, peak_mib()]), flush=True)
        before = seconds
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again at what is in use


if __name__ == "__main__":
    main()
