"""How large everything is that `gpu.py` measures, on a GPU, on a CPU and in a test."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Attributes:
        pipeline: of `small_pipelines.SIZES`.
        image_px: of synthesis and encoding.
        ipc: images per label, of ten labels, by our way; the published one makes one of each.
        steps: of the full schedule.
        files: JPEG files that are encoded; by the published way, a tenth of them.
        student: the network.
        view_px: of labels and students.
        images: of the distilled set.
        classes: of the distilled set.
        batch: images per step.
    """

    pipeline: str
    image_px: int
    ipc: int
    steps: int
    files: int
    student: str
    view_px: int
    images: int
    classes: int
    batch: int


GPU = Size("sd15", 512, 16, 50, 500, "resnet18", 224, 4096, 1000, 256)
CPU = Size("tiny", 32, 2, 10, 15, "resnet18", 32, 64, 10, 32)
SMALLEST = Size("tiny", 16, 1, 4, 10, "convnet3", 16, 20, 10, 10)
