"""Peak memory and time of a whole run over folders of different sizes, with a tiny pipeline.

5,000 files in 100 classes and 50,000 files in 1,000 classes, 32 px JPEG files of random colours, a
Stable Diffusion pipeline of a few channels with random weights, one image per class. Run it with
`make bench-scale`; benchmarks/README.md reports what it printed.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from small_pipelines import save_pipeline

FILES_PER_CLASS = 50
STAGE = re.compile(r"^(\w+) +\d+ computed +\d+ reused +([\d.]+) s$", re.MULTILINE)
RECIPE = """\
dataset: {{source: image_folder, path: {images}, size_px: 16}}
generator: {{pretrained: {{model: {model}}}}}
prototypes: {{ipc: 1}}
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


def main() -> None:
    """Run the sizes in processes of their own, and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=int, nargs="*", default=[5_000, 50_000])
    sizes = parser.parse_args().files
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_pipeline(folder / "model", "tiny", 16)
        print("| files | classes | CPU s | per 1,000 | peak memory, MiB |\n|---|---|---|---|---|")
        stages = dict[int, list[tuple[str, str]]]()
        for files in sizes:
            classes = files // FILES_PER_CLASS
            write_images(folder / str(files), classes)
            seconds, peak_mib, stages[files] = _run(folder, files)
            print(
                f"| {files:,} | {classes:,} | {seconds:.0f} | {1000 * seconds / files:.2f} "
                f"| {peak_mib:.0f} |"
            )
        print(
            f"\n| stage | {' | '.join(f'{files:,} files, s' for files in sizes)} |\n|---|---|---|"
        )
        for rows in zip(*stages.values(), strict=True):
            print(f"| {rows[0][0]} | {' | '.join(seconds for _, seconds in rows)} |")


def write_images(folder: Path, classes: int) -> None:
    """Write small JPEG files of random colours into a folder for each class."""
    random = np.random.default_rng(0)
    for class_id in range(classes):
        target = folder / f"{class_id:04d}"
        target.mkdir(parents=True)
        for number in range(FILES_PER_CLASS):
            pixels = random.integers(0, 256, (4, 4, 3)).astype(np.uint8)
            Image.fromarray(pixels).resize((32, 32)).save(target / f"{number}.jpg")


def _run(folder: Path, files: int) -> tuple[float, float, list[tuple[str, str]]]:
    """Run in a new store; return CPU seconds, peak memory in MiB and seconds per stage."""
    recipe = folder / f"files_{files}.yaml"
    recipe.write_text(RECIPE.format(images=folder / str(files), model=folder / "model"))
    environment = os.environ | {
        "D4M_STORE": str(folder / f"store-{files}"),
        "D4M_DEVICE": "cpu",
        "COLUMNS": "120",
    }
    program = Path(sys.executable).with_name("d4m")
    printed = folder / "printed.txt"
    with printed.open("w") as output:
        process = subprocess.Popen([program, "run", recipe], env=environment, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, "the error is printed above"
    found = STAGE.findall(printed.read_text())
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, found


if __name__ == "__main__":
    main()
