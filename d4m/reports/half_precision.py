"""How much faster networks train in half precision on this device."""

import torch
import torch.nn.functional as F

from d4m.classifiers.registry import build_classifier
from d4m.compute import computing_in
from d4m.reports.cost.bench import Trial
from d4m.reports.cost.rates import measure
from d4m.seeds import stream_generator
from d4m.settings import ClassifierSettings, Precision

_BATCH = 16
_STEPS = 1000  # of a training, so that more than one is measured


def bfloat16_gain(
    architecture: str, *, size_px: int, channels: int, classes: int, device: str
) -> float:
    """Return how many times as fast a training step is in bfloat16 as in float32; 0 without it.

    It is measured as the rates of an estimate are, in a few seconds, and longer where bfloat16 is
    slow.

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

    def each_s(precision: Precision) -> float:
        def run(count: int) -> int:
            for _ in range(count):
                network.zero_grad()
                with computing_in(precision, pixels.device):
                    logits = network(pixels)
                F.cross_entropy(logits.float(), class_ids).backward()
            return 0

        return measure(Trial(run), _STEPS, device=device).each_s

    plain_s = each_s("float32")
    try:
        return plain_s / each_s("bfloat16")
    except RuntimeError:  # such as an operation that the device does not have
        return 0.0
