"""The digits at a smaller size, with a generator, teacher and students worth the name."""

from pathlib import Path

import numpy as np
import pytest
import torch

from d4m.images.pixels import to_pixels
from d4m.scores.accuracy import score_classifier
from d4m.stages.generator import load_pipeline
from d4m.stages.score_table import ScoreRow
from d4m.stages.training_sets import synthetic_set
from d4m.stages.unit_names import class_unit
from d4m.synthesis.samplers import use_scheduler
from d4m.synthesis.synthesize import ImageRequest, synthesize_images
from tests.conftest import Workspace
from tests.pipeline.laboratory import rows_of, teacher_of

RECIPE = """\
dataset: {source: digits}
prompts: {template: "a handwritten {name}"}
generator:
  compact:
    autoencoder: {steps: 250, channels: [16, 32]}
    denoiser: {steps: 550, channels: [32, 64], text_length: 24}
prototypes: {ipc: 1}
synthesis: {strength: 0.5, guidance_scale: 6, num_inference_steps: 20}
teacher:
  epochs: 15
  augmentation: {crop_scale: [0.6, 1], flip: 0, rotation_degrees: 12, cutmix: 0}
  optimizer: {batch_size: 64, learning_rate: 2.0e-3}
soft_labels: {epochs: 300, augmentation: {crop_scale: [0.5, 1], flip: 0, cutmix: 0.5}}
evaluation:
  students: [{architecture: convnet3, options: {width: 64}}]
  matching: {temperature: 4}
  optimizer: {batch_size: 50, learning_rate: 1.0e-2}
  baselines: [random_real]
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace(Path(tmp_path_factory.mktemp("digits")))
    made.write("digits", RECIPE)
    made.run("digits")
    return made


def row(rows: list[ScoreRow], training_set: str, labels: str) -> ScoreRow:
    return next(r for r in rows if (r.training_set, r.labels) == (training_set, labels))


def test_the_teacher_recognises_every_synthetic_image(digits: Workspace):
    context = digits.pipeline("digits").open_context()
    images = synthetic_set(context)
    scores = score_classifier(teacher_of(context), images.pixels, images.class_ids)
    assert scores.top1 == 1.0


def test_a_prototype_under_another_class_s_prompt_becomes_that_class(digits: Workspace):
    context = digits.pipeline("digits").open_context()
    settings = context.recipe.settings
    names = context.source.class_table.names
    pairs = [(start, told) for start in range(10) for told in range(10) if start != told]
    starts = [context.read("prototypes", class_unit(c))["prototypes"][0] for c, _ in pairs]
    pipeline = load_pipeline(context)
    use_scheduler(pipeline, settings.synthesis)
    images = synthesize_images(
        pipeline,
        [
            ImageRequest(start.astype(np.float32), f"a handwritten {names[told]}", seed)
            for seed, (start, (_, told)) in enumerate(zip(starts, pairs, strict=True))
        ],
        negative_prompt=settings.prompts.negative,
        settings=settings.synthesis,
        compute=context.compute,
    )
    told = torch.tensor([told for _, told in pairs])
    scores = score_classifier(teacher_of(context), to_pixels(np.concatenate(list(images))), told)
    assert scores.top1 >= 0.75


def test_one_synthetic_image_per_class_beats_a_random_real_one(digits: Workspace):
    rows = rows_of(digits.pipeline("digits").open_context())
    synthetic, random = row(rows, "synthetic", "soft"), row(rows, "random_real", "soft")
    assert synthetic.ipc == random.ipc == 1
    assert synthetic.seeds == random.seeds == 3
    assert synthetic.top1 > random.top1
    assert synthetic.top1 >= 0.80


def test_soft_labels_beat_hard_ones_and_the_teacher_beats_all(digits: Workspace):
    rows = rows_of(digits.pipeline("digits").open_context())
    assert row(rows, "synthetic", "soft").top1 > row(rows, "synthetic", "hard").top1
    assert row(rows, "teacher", "hard").top1 == max(r.top1 for r in rows) >= 0.97
