"""Train students one by one and at once, on one device, and compare their time and their scores.

The students are convnet3, on random real digits that are enlarged to 28 px, three of them on each
of three sets, with class labels or with the labels that a teacher gives while they train. Both ways
are timed in one process, in turn, and the fastest of the rounds counts. Seconds are those of the
clock on a GPU and of the processor on a CPU, where other work on the machine does not count. The
accuracies are those of test digits, after the epochs that were timed.

With `--steps` noise takes the place of digits, and only steps are timed: gradients and optimizer.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from d4m.classifiers.joined import Joined
from d4m.classifiers.registry import build_classifier
from d4m.compute import keep_freed_memory
from d4m.images.image_set import ImageSet
from d4m.scores.accuracy import score_classifier
from d4m.settings import (
    AugmentationSettings,
    ClassifierSettings,
    EvaluationSettings,
    OptimizerSettings,
    SoftLabelSettings,
)
from d4m.training.gradients import Gradients
from d4m.training.optimizers import build_optimizer
from d4m.training.soft_labels import TeacherLabels
from d4m.training.together import (
    Learner,
    train_together_with_hard_labels,
    train_together_with_soft_labels,
)
from d4m.training.train import Training, train_with_hard_labels, train_with_soft_labels

HEAD = (
    "| labels | optimizer | precision | images/s, one by one | at once | ratio "
    "| top-1 %, one by one | at once | largest difference |\n|---|---|---|---|---|---|---|---|---|"
)
VIEWS = AugmentationSettings(crop_scale=(0.7, 1.0), flip=0.0, cutmix=0.5)
MATCHING = EvaluationSettings().matching
_TEST = 500


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Attributes:
        students: how many.
        size_px: height and width of the images.
        width: of the networks.
        ipc: images per class, of ten classes.
        batch: images per step.
        epochs: passes over the images.
        device: in torch's words.
    """

    students: int = 9
    size_px: int = 28
    width: int = 128
    ipc: int = 10
    batch: int = 50
    epochs: int = 20
    device: str = "cpu"


@dataclass(frozen=True)
class Compared:
    """Both ways of training the same students.

    Attributes:
        one_by_one: images per second, of all students.
        at_once: the same.
        scores: of each student, by each way.
    """

    one_by_one: float
    at_once: float
    scores: tuple[Sequence[float], Sequence[float]]

    def markdown(self, *names: str) -> str:
        """Return the row of the table that begins with these names."""
        cells = [*names, f"{self.one_by_one:.0f}", f"{self.at_once:.0f}"]
        cells.append(f"{self.at_once / self.one_by_one:.2f}")
        cells += [_spread(own) for own in self.scores]
        largest = max(abs(one - other) for one, other in zip(*self.scores, strict=True))
        return f"| {' | '.join([*cells, f'{100 * largest:.1f}'])} |"


class Comparison:
    """The images, and a teacher that has learnt from all of them."""

    def __init__(self, size: Size) -> None:
        """Enlarge the digits; train the teacher."""
        self.size = size
        digits: Any = load_digits()
        pixels = torch.from_numpy(digits.images).float()[:, None] / 8 - 1
        pixels = F.interpolate(pixels, (size.size_px,) * 2, mode="bilinear")
        self.pixels, self.class_ids = pixels, torch.from_numpy(digits.target)
        self.sets = [self._draw(number) for number in range(3)]
        self.test = self._set(torch.arange(len(pixels) - _TEST, len(pixels)))
        self.teacher = _network(replace(size, width=32), 99)
        optimizer = OptimizerSettings(batch_size=64, learning_rate=3e-3)
        real = self._set(torch.arange(len(pixels) - _TEST))
        train_with_hard_labels(
            self.teacher, real, Training(3, optimizer, seed=0), augmentation=VIEWS
        )

    def compare(self, labels: str, name: str, precision: Any, *, rounds: int = 2) -> Compared:
        """Train the students by both ways, in turn."""
        optimizer = OptimizerSettings.model_validate(
            {
                "name": name,
                "batch_size": self.size.batch,
                "learning_rate": 0.01 if name == "sgd" else 1e-3,
                "precision": precision,
            }
        )
        ways = (self._one_by_one, self._at_once)
        seconds, scores = [[], []], [[], []]
        for _ in range(rounds):
            for place, way in enumerate(ways):
                learners = self._learners(optimizer, labels)
                work = partial(way, learners, labels)
                seconds[place].append(_timed(work, self.size.device))
                scores[place] = [self._score(each.model) for each in learners]
        images = self.size.students * self.size.epochs * 10 * self.size.ipc
        one_by_one, at_once = (images / min(each) for each in seconds)
        return Compared(one_by_one, at_once, (scores[0], scores[1]))

    @staticmethod
    def _one_by_one(learners: Sequence[Learner], labels: str) -> None:
        for each in learners:
            model, images, training = each.model, each.images, each.training
            if labels == "hard":
                train_with_hard_labels(model, images, training, augmentation=VIEWS)
            else:
                train_with_soft_labels(model, images, each.labels, training, matching=MATCHING)

    @staticmethod
    def _at_once(learners: Sequence[Learner], labels: str) -> None:
        if labels == "hard":
            train_together_with_hard_labels(learners, augmentation=VIEWS)
        else:
            train_together_with_soft_labels(learners, matching=MATCHING)

    def _learners(self, optimizer: OptimizerSettings, labels: str) -> list[Learner]:
        size, settings = self.size, SoftLabelSettings(mode="online", augmentation=VIEWS)
        settings = settings.model_copy(update={"epochs": size.epochs})
        own = [TeacherLabels(each, self.teacher, settings, seed=0) for each in self.sets]
        learners = list[Learner]()
        for number in range(size.students):
            place = number * len(self.sets) // size.students
            training = Training(size.epochs, optimizer, seed=number)
            learner = Learner(_network(size, number), self.sets[place], training)
            learners.append(replace(learner, labels=own[place]) if labels == "soft" else learner)
        return learners

    def _draw(self, number: int) -> ImageSet:
        draw = np.random.default_rng(number)
        known = self.class_ids[:-_TEST].numpy()
        rows = [
            draw.choice(np.flatnonzero(known == each), self.size.ipc, replace=False)
            for each in range(10)
        ]
        return self._set(torch.from_numpy(np.concatenate(rows)))

    def _set(self, rows: Tensor) -> ImageSet:
        device = self.size.device
        return ImageSet(self.pixels[rows].to(device), self.class_ids[rows].to(device))

    def _score(self, model: nn.Module) -> float:
        return score_classifier(model, self.test.pixels, self.test.class_ids).top1


def compare_steps(size: Size, precision: Any, *, rounds: int) -> tuple[float, float]:
    """Return the seconds of a step of all students, one by one and at once."""
    settings = OptimizerSettings(batch_size=size.batch, precision=precision)
    networks = [_network(size, seed) for seed in range(size.students)]
    pixels = torch.randn(size.students, size.batch, 1, size.size_px, size.size_px)
    pixels, class_ids = pixels.to(size.device), torch.arange(size.batch).to(size.device) % 10
    alone = [(Gradients(each, precision), build_optimizer(each, settings)) for each in networks]
    joined = Joined(networks)
    together = Gradients(joined, precision), build_optimizer(joined, settings)
    wide = pixels.transpose(0, 1).flatten(1, 2)

    def losses(logits: Tensor, part: slice) -> Tensor:
        own = class_ids[part, None].expand(logits.shape[:-1])
        return F.cross_entropy(logits.movedim(-1, 1), own.view(logits.shape[:-1]), reduction="none")

    def one_by_one() -> None:
        for own, (gradients, optimizer) in zip(pixels, alone, strict=True):
            gradients.add(own, lambda logits, part: losses(logits[:, None], part)[:, 0])
            optimizer.step()

    def at_once() -> None:
        together[0].add(wide, losses)
        together[1].step()

    seconds = [[], []]
    for _ in range(rounds + 1):
        for place, way in enumerate((one_by_one, at_once)):
            seconds[place].append(_timed(way, size.device))
    one, other = (min(each[1:]) for each in seconds)  # kernels are chosen in the first round
    return one, other


def main() -> None:
    """Print a row for each kind of labels, or for each number format."""
    keep_freed_memory()
    asked = _arguments()
    size = Size(
        asked.students,
        asked.size_px,
        asked.width,
        asked.ipc,
        asked.batch,
        asked.epochs,
        asked.device,
    )
    on = torch.cuda.get_device_name() if size.device.startswith("cuda") else "CPU"
    print(f"{on}, {torch.get_num_threads()} threads, torch {torch.__version__}, {size}\n")
    if asked.steps:
        print("| precision | seconds a step, one by one | at once | ratio |\n|---|---|---|---|")
        for precision in asked.precisions:
            one, other = compare_steps(size, precision, rounds=asked.rounds)
            print(f"| {precision} | {one:.4f} | {other:.4f} | {one / other:.2f} |", flush=True)
        return
    print(HEAD)
    comparison = Comparison(size)
    for labels in asked.labels:
        for name in asked.optimizers:
            for precision in asked.precisions:
                found = comparison.compare(labels, name, precision, rounds=asked.rounds)
                print(found.markdown(labels, name, precision), flush=True)


def _network(size: Size, seed: int) -> nn.Module:
    return build_classifier(
        ClassifierSettings(architecture="convnet3", options={"width": size.width}),
        channels=1,
        size_px=size.size_px,
        classes=10,
        seed=seed,
    ).to(size.device)


def _timed(work: Callable[[], Any], device: str) -> float:
    if not device.startswith("cuda"):
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def _spread(scores: Sequence[float]) -> str:
    error = stdev(scores) / len(scores) ** 0.5 if len(scores) > 1 else 0.0
    return f"{100 * fmean(scores):.1f} ± {100 * error:.1f}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Size()
    for name in ("students", "size_px", "width", "ipc", "batch", "epochs"):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, default=getattr(default, name))
    parser.add_argument("--steps", action="store_true", help="time steps alone")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--labels", nargs="*", choices=("hard", "soft"), default=("hard", "soft"))
    parser.add_argument("--optimizers", nargs="*", default=("adamw",))
    parser.add_argument("--precisions", nargs="*", default=("float32",))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
