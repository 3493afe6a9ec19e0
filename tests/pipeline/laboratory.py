"""The tiny recipe with one setting changed at a time, each run once and kept."""

import json
from functools import cache

import numpy as np
import torch
from filelock import FileLock
from ruamel.yaml import YAML
from typer.testing import CliRunner

from d4m.classifiers.registry import build_classifier
from d4m.cli import app
from d4m.pipeline import STAGES
from d4m.seeds import stream_seed
from d4m.settings import MADE, OtherTeacherSettings, StudentSettings
from d4m.stages.score_table import score_rows
from d4m.stages.teacher import load_teacher, teacher_inputs
from d4m.stages.training_sets import real_set
from d4m.stages.unit_names import THE_TEACHER, name_teacher
from tests.conftest import TINY_RECIPE, Workspace

BOTH = ("soft", "hard")
SHALLOW = {"architecture": "test_vit", "options": {"depth": 1}}
BASELINES = ["random_real", "nearest_real", "decoded_prototypes", "from_noise", "full_data"]
RIVALS = ["random_real", "decoded_real", "diffused_real", *MADE]
# The changes of each recipe to the tiny one with its first student and first seed alone.
RECIPES = {
    "online": {"soft_labels.mode": "online"},
    "uint8": {"soft_labels.format": "uint8"},
    "top_k": {"soft_labels.format": "top_k", "soft_labels.top_k": 3},
    "again": {"soft_labels.labelled_epochs": 2},
    "tinted": {"soft_labels.augmentation": {"jitter": 0.4, "lighting": 0.1, "crop_scale": [1, 1]}},
    "ensemble": {"teacher.members": 2},
    "others": {
        "teacher.others": [
            {"name": "quick", "epochs": 1, "options": {"width": 16}},
            {"name": "two", **SHALLOW, "epochs": 1, "members": 2},
        ]
    },
    "candidates": {"synthesis.candidates": 3, "synthesis.diversity": 0.0},
    "explaining": {"prototypes.representative": "explaining"},
    "refined": {"prototypes.representative": "explaining", "prototypes.refinement_steps": 4},
    "classes": {
        "prototypes.refinement": {"steps": 3},
        "synthesis.strength": 0.5,
        "synthesis.guidance_scale": 1,
    },
    "mosaics": {
        "synthesis.mosaic": 2,
        "prototypes.ipc": 1,
        "prototypes.refinement": {"steps": 2, "through": "vae"},
        "evaluation.baselines": BASELINES,
        "evaluation.matching.cluster_weights": True,
    },
    "left_open": {
        "prototypes.refinement": {"steps": 2},
        "synthesis.strength": "auto",
        "synthesis.guidance_scale": "auto",
        "synthesis.choose_from": {"strengths": [0.5, 1], "guidance_scales": [1, 4]},
        "soft_labels.mode": "online",
        "evaluation.labels": ["hard"],
        "evaluation.baselines": ["from_noise"],
    },
    "baselines": {"evaluation.baselines": BASELINES},
    "rivals": {
        "teacher.options": {"norm": "batch", "width": 16},
        "synthesis.candidates": 2,
        "synthesis.groups": 5,
        "soft_labels": {"mode": "online", "epochs": 1},
        "evaluation.students": [{"architecture": "convnet3", "options": {"width": 8}}],
        "evaluation.baselines": RIVALS,
        "evaluation.labels": ["hard"],
        "evaluation.coresets": {"log_epochs": None},
        "evaluation.dm": {"steps": 1, "real_images": 8},
        "evaluation.sre2l": {"steps": 2},
        "evaluation.distillations": 2,
    },
    "weighted": {"evaluation.matching.cluster_weights": True},
    "repeated": {"evaluation.distillations": 2, "evaluation.seeds": 2},
    "chosen": {
        "prototypes.ipc": 2,
        "prototypes.representative": "explaining",
        "synthesis.set_guidance": {"cgs": {}, "dap": {}, "ot": {}, "references": 9},
        "soft_labels.mode": "online",
        "evaluation.distillations": 2,
        "evaluation.labels": ["soft"],
        "evaluation.baselines": ["nearest_real"],
        "evaluation.matching.cluster_weights": True,
    },
    "plain": {"evaluation.without_augmentation": True},
    "cropped": {
        "evaluation.test_crop": {"resize_px": 12, "crop_px": 8},
        "evaluation.baselines": ["full_data"],
    },
    "hard": {
        "preset": ["dc", "hard"],
        "evaluation.hard.epochs": 3,
        "evaluation.students": ["convnet3"],  # as wide as published
    },
    "validated": {
        "dataset.validation_share": 0.1,
        "evaluation.split": "validation",
        "evaluation.baselines": ["full_data"],
    },
}
QUICK, TWO = (
    name_teacher(OtherTeacherSettings.model_validate(other))
    for other in RECIPES["others"]["teacher.others"]
)
"""The names of the other teachers' units, whatever the recipe calls them."""
CLASSES = tuple(f"class-{class_id:05d}" for class_id in range(10))
BLOCKS = ("epochs-000000", "epochs-000002")
SOFT = tuple(f"{name}-soft-convnet3-00" for name in ("synthetic", "random_real", "nearest_real"))
HARD = tuple(
    f"{name}-hard-convnet3-00" for name in ("synthetic", "random_real", "nearest_real", "full_data")
)


TRAIN, TEST, VALIDATION = (
    [f"real_images/{split}-{class_id:05d}" for class_id in range(10)]
    for split in ("train", "test", "validation")
)
SYNTHETIC = [f"synthetic_images/{name}" for name in CLASSES]
PROTOTYPES = [f"prototypes/{name}" for name in CLASSES]
GENERATOR = ["generator/vae", "generator/denoiser", "generator/scheduler"]
LABELS = [f"soft_labels/{name}" for name in BLOCKS]
TEACHER = ["teacher/teacher"]


def recipe_text(edits):
    """The tiny recipe with one student and one seed, and these keys."""
    document = YAML(typ="safe").load(TINY_RECIPE)
    evaluation = document["evaluation"]
    evaluation |= {"students": evaluation["students"][:1], "seeds": 1}
    for path, value in edits.items():
        *sections, key = path.split(".")
        section = document
        for name in sections:
            section = section.setdefault(name, {})
        section[key] = value
    return json.dumps(document)


class Laboratory(Workspace):
    """Recipes next to the tiny one, each of which is run when it is first asked for."""

    def __init__(self, folder):
        super().__init__(folder)
        self.computed = cache(self._computed)

    def _computed(self, name):
        if name != "repeated" and "evaluation.distillations" in RECIPES[name]:
            self.computed("repeated")  # which makes what these recipes share with it
        file = self.folder / f"computed-{name}.json"
        with FileLock(self.folder / f"computed-{name}.lock"):
            if not file.exists():
                self.write(name, recipe_text(RECIPES[name]))
                file.write_text(json.dumps(self.run(name)))
        found = json.loads(file.read_text())
        return {stage: tuple(units) for stage, units in found.items()}

    def write(self, name, text):
        """Write a recipe of a test's own: all tests share the folder, so each name has one user."""
        ours = name in RECIPES and text != recipe_text(RECIPES[name])
        assert not ours, f"{name} is a recipe of the laboratory; choose another name"
        return super().write(name, text)

    def context(self, name):
        if name != "tiny":
            self.computed(name)
        return self.pipeline(name).open_context()

    def edited(self, name, edits, *, until):
        """The context of a recipe that is run up to and with a stage.

        Recipes of the laboratory that it goes on from are run first: they say what they compute.
        """
        for known, changes in RECIPES.items():
            if changes.items() <= edits.items():
                self.computed(known)
        self.write(name, recipe_text(edits))
        for stage in STAGES:
            self.pipeline(name).run_stage(stage.name)
            if stage.name == until:
                break
        return self.pipeline(name).open_context()


def unit_of(context, name, stage="evaluation_scores"):
    return context.store.find(stage, context.upstream[stage][name].key)


def scores_of(context, name="synthetic-soft-convnet3-00"):
    return context.read("evaluation_scores", name)


def same_arrays(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def rows_of(context):
    return score_rows(context, context.recipe.settings)


def teacher_of(context, name=THE_TEACHER):
    """A teacher of the recipe, by its name in the names of units."""
    members = [unit for _, unit in teacher_inputs(context, name).reads]
    return load_teacher(context, members)


def row_names(context):
    return [(row.training_set, row.labels, row.augmented) for row in rows_of(context)]


def dataset_folder(context):
    return context.open_files("distilled_dataset", "distilled_dataset")


def shown_lines(lab, name):
    lab.computed(name)
    environment = lab.environment() | {"COLUMNS": "200"}
    result = CliRunner().invoke(app, ["show", name], env=environment)
    assert result.exception is None, result.exception
    return result.stdout.splitlines()


def untrained_student(seed=None, *, width=16):
    """The first student before its training, and the stream of that training."""
    seed = stream_seed(0, "student", "convnet3", 0) if seed is None else seed
    weights = stream_seed(seed, "weights")
    student = StudentSettings(options={"width": width})
    model = build_classifier(student, channels=1, size_px=8, classes=10, seed=weights)
    return model, stream_seed(seed, "training")


def teachers_own_top1(context, name="teacher"):
    return float(scores_of(context, name)["top1"])


def accuracy_on(context, classifier, split):
    images = real_set(context, split, size_px=8)
    with torch.inference_mode():
        found = classifier(images.pixels[torch.arange(len(images))]).argmax(1)
    return float((found == images.class_ids).double().mean())
