"""Ways to choose strength and guidance scale, compared with what a long training says.

    python benchmarks/strength_criteria.py digits_ipc1 --long 300 --short 100
    python benchmarks/strength_criteria.py digits --long 100 --short 15

For a recipe whose generator, teacher and prototypes are in the store, or are made first: draws the
images of each pair of strength and guidance scale, and prints test top-1 of two long trainings on
class labels, then what each way of choosing sees: the error and top-1 of a kernel regression on a
quarter of the training images, the top-1 of two short trainings on the same images, and Frechet
distance and precision in the teacher's features. The first line is the decoded prototypes.
"""

import argparse
from dataclasses import dataclass

import numpy as np
import torch

from d4m.classifiers.predict import penultimate_features
from d4m.classifiers.registry import build_classifier
from d4m.environment import compute, recipes_folder, store_root
from d4m.images.image_set import ImageSet
from d4m.images.pixels import to_pixels
from d4m.pipeline import Pipeline
from d4m.prototypes.class_prediction import ClassPredictor
from d4m.recipe.recipe import load_recipe
from d4m.scores.accuracy import score_classifier
from d4m.scores.fidelity import frechet_distance, precision_recall
from d4m.seeds import stream_seed
from d4m.settings import ClassifierSettings, OptimizerSettings, SynthesisSettings
from d4m.stages.context import StageContext
from d4m.stages.synthetic_images import draw_images, drawing_inputs, noise_seed, prepared_pipeline
from d4m.stages.teacher import load_teacher
from d4m.stages.training_sets import real_set
from d4m.stages.unit_names import class_unit
from d4m.synthesis.synthesize import ImageRequest, decode_latents
from d4m.training.train import Training, train_with_hard_labels

PAIRS = ((0.1, 1.0), (0.2, 4.0), (0.4, 4.0), (0.4, 1.0), (0.7, 8.0), (0.7, 1.0))


def main() -> None:
    """Print a line per pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--long", type=int, default=300, help="epochs of a long training")
    parser.add_argument("--short", type=int, default=100, help="epochs of a short training")
    asked = parser.parse_args()
    recipe = load_recipe(recipes_folder() / f"{asked.recipe}.yaml")
    pipeline = Pipeline(recipe, store_root(), compute())
    for stage in ("real_images", "generator", "latents", "teacher", "prototypes"):
        pipeline.run_stage(stage)
    bench = Bench.open(pipeline.open_context(), asked.long, asked.short)
    print("strength, guidance  long    error  top-1   short  Frechet  precision")
    for pair in (None, *PAIRS):
        print(bench.measure(pair), flush=True)


@dataclass(frozen=True)
class Bench:
    """Everything that is the same for all pairs."""

    context: StageContext
    prototypes: np.ndarray
    class_ids: np.ndarray
    held_out: ImageSet
    test: ImageSet
    long: int
    short: int

    @classmethod
    def open(cls, context: StageContext, long: int, short: int) -> "Bench":
        """Read prototypes and real images."""
        names = [class_unit(class_id) for class_id in context.class_ids]
        found = [context.read("prototypes", name)["prototypes"] for name in names]
        size_px = drawing_inputs(context, 0).settings["size_px"]
        train, test = (real_set(context, each, size_px=size_px) for each in ("train", "test"))
        some = np.sort(np.random.default_rng(0).permutation(len(train))[: len(train) // 4])
        return cls(
            context,
            np.concatenate(found).astype(np.float32),
            np.repeat(context.class_ids, [len(each) for each in found]),
            train.pick(torch.from_numpy(some)),
            test,
            long,
            short,
        )

    def measure(self, pair: tuple[float, float] | None) -> str:
        """Return a line of the table; of the decoded prototypes if there is no pair."""
        pixels = to_pixels(torch.from_numpy(self._draw(pair)))
        images = ImageSet(pixels, torch.from_numpy(self.class_ids))
        classes = len(self.context.class_ids)
        regression = ClassPredictor(self.held_out, classes=classes, seed=0).score(images)
        long = [self._train(images, self.long, 10 + seed, self.test) for seed in range(2)]
        short = [self._train(images, self.short, seed, self.held_out) for seed in range(2)]
        teacher = load_teacher(self.context, ["teacher"])
        real, own = (
            penultimate_features(teacher, each.pixels).numpy() for each in (self.test, images)
        )
        precision = precision_recall(real, own, neighbours=3).precision
        name = "decoded" if pair is None else f"{pair[0]:g}, {pair[1]:g}"
        return (
            f"{name:<18}  {100 * np.mean(long):5.1f}   {regression.error:.3f}  "
            f"{100 * regression.top1:5.1f}   {100 * np.mean(short):5.1f}   "
            f"{frechet_distance(real, own):.3f}    {precision:.2f}"
        )

    def _draw(self, pair: tuple[float, float] | None) -> np.ndarray:
        context = self.context
        each = [drawing_inputs(context, class_id).settings for class_id in context.class_ids]
        pipeline = prepared_pipeline(context, each[0])
        if pair is None:
            return decode_latents(pipeline.vae, self.prototypes, compute=context.compute)
        numbers = {"strength": pair[0], "guidance_scale": pair[1]}
        requests = (
            ImageRequest(prototype, each[own]["prompt"], stream_seed(noise_seed(1, own), row))
            for row, (prototype, own) in enumerate(
                zip(self.prototypes, self.class_ids.tolist(), strict=True)
            )
        )
        batches = draw_images(
            context,
            pipeline,
            requests,
            settings=SynthesisSettings.among({**each[0], **numbers}),
            negative_prompt=each[0]["negative_prompt"],
        )
        return np.concatenate(list(batches))

    def _train(self, images: ImageSet, epochs: int, seed: int, scored: ImageSet) -> float:
        model = build_classifier(
            ClassifierSettings(),
            channels=images.pixels.shape[1],
            size_px=images.size_px,
            classes=len(self.context.class_ids),
            seed=seed,
        )
        optimizer = OptimizerSettings(batch_size=50, learning_rate=1e-2)
        views = self.context.recipe.settings.soft_labels.augmentation
        training = Training(epochs=epochs, optimizer=optimizer, seed=seed)
        train_with_hard_labels(model, images, training, augmentation=views)
        return score_classifier(model, scored.pixels, scored.class_ids, "float32").top1


if __name__ == "__main__":
    main()
