"""Measure what batches of images, and parts of them, cost a CPU: time and memory.

    OMP_NUM_THREADS=1 python benchmarks/cpu_batches.py

A network looks at 1,024 images batch by batch, or is trained on a batch of 256 part by part, unless
it has batch norm. Every row has a process of its own. The last column says whether the logits or
gradients are those of the network's first row, bit by bit.
"""

import hashlib
import subprocess
import sys
import time

import torch
from peak_memory import peak_mib
from torch import Tensor, nn

CONVNETS = (("convnet3", 1, 28), ("convnet3", 3, 32), ("convnet4", 3, 64))
NETWORKS = {"looks": (*CONVNETS, ("resnet18", 3, 32)), "is trained": CONVNETS}
SIZES = {"looks": (1024, 256, 64), "is trained": (256, 128, 32)}
ROUNDS = 2


def measure(how: str, architecture: str, channels: int, size_px: int, size: int) -> None:
    """Print images per CPU second, the peak of memory, and a digest of what was computed."""
    from d4m.classifiers.registry import build_classifier
    from d4m.compute import keep_freed_memory
    from d4m.settings import ClassifierSettings

    keep_freed_memory()
    settings = ClassifierSettings(architecture=architecture)
    model = build_classifier(settings, channels=channels, size_px=size_px, classes=10, seed=0)
    count = SIZES[how][0]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(count, channels, size_px, size_px, generator=generator)
    work = _look if how == "looks" else _train
    seconds, found = list[float](), pixels
    for _ in range(ROUNDS):
        before = time.process_time()
        found = work(model, pixels, size)
        seconds.append(time.process_time() - before)
    digest = hashlib.sha256(found.numpy().tobytes()).hexdigest()
    print(count / min(seconds), peak_mib(), digest)


def _look(model: nn.Module, pixels: Tensor, size: int) -> Tensor:
    with torch.inference_mode():
        return torch.cat([model.eval()(part) for part in pixels.split(size)])


def _train(model: nn.Module, pixels: Tensor, size: int) -> Tensor:
    from d4m.training.gradients import Gradients

    gradients = Gradients(model.train(), "float32", at_once=size)
    gradients.add(pixels, lambda logits, _: logits.square().mean(dim=1))
    return torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])


def main() -> None:
    """Print a row per network and size."""
    print("| network | px | | images at once | images per CPU second | MiB | the same bits |")
    print("|---|---|---|---|---|---|---|")
    for how, sizes in SIZES.items():
        for architecture, channels, size_px in NETWORKS[how]:
            whole = ""
            for size in sizes:
                own = [how, architecture, str(channels), str(size_px), str(size)]
                done = subprocess.run(
                    [sys.executable, __file__, *own], capture_output=True, text=True, check=True
                )
                rate, peak, digest = done.stdout.split()
                whole = whole or digest
                figures = f"{float(rate):.0f} | {float(peak):,.0f}"
                same = "yes" if digest == whole else "no"
                print(f"| {architecture} | {size_px} | {how} | {size:,} | {figures} | {same} |")
                sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:]:
        measure(*sys.argv[1:3], *map(int, sys.argv[3:]))
    else:
        main()
