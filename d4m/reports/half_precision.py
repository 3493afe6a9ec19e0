"""How much faster networks train in half precision on this device."""

import time

import torch
import torch.nn.functional as F

from d4m.classifiers.registry import build_classifier
from d4m.compute import computing_in
from d4m.seeds import stream_generator
from d4m.settings import ClassifierSettings, Precision

_BATCH = 16
_STEPS = 3


def bfloat16_gain(
    architecture: str, *, size_px: int, channels: int, classes: int, device: str
) -> float:
    """Return how many times as fast a training step is in bfloat16 as in float32; 0 without it.

    The fastest of a few steps counts, after one to warm up. That takes about a second, and longer
    where bfloat16 is slow.

    Args:
        architecture: of the network.
        size_px: height and width of the images.
        channels: 1 or 3.
        classes: number of classes.
        device: where it computes.
    """
    network = build_classifier(
        ClassifierSettings(architecture=architecture),
        channels=channels,
        size_px=size_px,
        classes=classes,
        seed=0,
    ).to(device)
    draw = stream_generator(0, "images")
    drawn = draw.random((_BATCH, channels, size_px, size_px), dtype="float32")
    pixels = torch.from_numpy(drawn).to(device)
    class_ids = torch.zeros(_BATCH, dtype=torch.int64, device=device)

    # The clock also counts other processes of a busy machine, and a GPU's work is no CPU's time.
    clock = time.process_time if device == "cpu" else time.perf_counter

    def step_s(precision: Precision) -> float:
        since = clock()
        network.zero_grad()
        with computing_in(precision, pixels.device):
            logits = network(pixels)
        F.cross_entropy(logits.float(), class_ids).backward()
        gradients = [each.grad for each in network.parameters() if each.grad is not None]
        float(gradients[0].sum())  # waits for the device
        return clock() - since

    def fastest_s(precision: Precision) -> float:
        return min([step_s(precision) for _ in range(1 + _STEPS)][1:])

    plain_s = fastest_s("float32")
    try:
        return plain_s / fastest_s("bfloat16")
    except RuntimeError:  # such as an operation that the device does not have
        return 0.0
