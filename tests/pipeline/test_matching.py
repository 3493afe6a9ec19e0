"""Ways to label, to weigh, to choose and to compare: what each computes, reads and comes to."""

import json
import shutil
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import zarr
from ruamel.yaml import YAML
from scipy.special import logsumexp
from typer.testing import CliRunner

import d4m.soft_labels
from d4m.augment import replay_views
from d4m.classifiers.registry import build_classifier
from d4m.cli import app
from d4m.dd_ranking import augmentation_robust_score, label_robust_score
from d4m.errors import PrototypeError, RecipeError
from d4m.images import to_pixels
from d4m.label_formats import pack_logits, unpack_logits
from d4m.matching import kl_loss
from d4m.pipeline import STAGES
from d4m.prototypes import fit_prototypes
from d4m.seeds import stream_seed
from d4m.settings import MatchingSettings, OptimizerSettings, SoftLabelSettings, StudentSettings
from d4m.soft_labels import label_views
from d4m.stages.compared_sets import read_training_set
from d4m.stages.evaluation_scores import EvaluationScores
from d4m.stages.generator import load_pipeline
from d4m.stages.score_table import score_rows, teacher_by_student
from d4m.stages.soft_labels import StoredLabels
from d4m.stages.student_runs import soft_label_settings, student_runs
from d4m.stages.teacher import load_teacher
from d4m.stages.training_sets import cluster_weights, real_set, synthetic_set
from d4m.student import train_with_soft_labels
from d4m.synthesis import ImageRequest, synthesize_images, use_scheduler
from d4m_assets.checks import beats_random_real, class_order
from d4m_assets.metadata import score_table
from tests.conftest import TINY_RECIPE, Workspace

BOTH = ("soft", "hard")
BASELINES = ["random_real", "nearest_real", "decoded_prototypes", "from_noise", "full_data"]
# What each recipe changes in the tiny one with its first student and first seed alone.
RECIPES = {
    "online": {"soft_labels.mode": "online"},
    "uint8": {"soft_labels.format": "uint8"},
    "top_k": {"soft_labels.format": "top_k", "soft_labels.top_k": 3},
    "again": {"soft_labels.labelled_epochs": 2},
    "ensemble": {"teacher.members": 2},
    "others": {
        "teacher.others": [
            {"name": "quick", "epochs": 1},
            {"name": "two", "architecture": "test_vit", "epochs": 1, "members": 2},
        ]
    },
    "candidates": {"synthesis.candidates": 3, "synthesis.diversity": 0.0},
    "explaining": {"prototypes.representative": "explaining"},
    "baselines": {"evaluation.baselines": BASELINES},
    "weighted": {"evaluation.matching.cluster_weights": True},
    "plain": {"evaluation.without_augmentation": True},
    "hard": {"preset": ["dc", "hard"], "evaluation.hard.epochs": 3},
    "validated": {
        "dataset.validation_share": 0.1,
        "evaluation.split": "validation",
        "evaluation.baselines": ["full_data"],
    },
}
CLASSES = tuple(f"class-{class_id:05d}" for class_id in range(10))
BLOCKS = ("epochs-000000", "epochs-000002")
SOFT = tuple(f"{name}-soft-convnet3-00" for name in ("synthetic", "random_real", "nearest_real"))
HARD = tuple(
    f"{name}-hard-convnet3-00" for name in ("synthetic", "random_real", "nearest_real", "full_data")
)
COMPUTED = {
    "online": {"evaluation_scores": SOFT},
    "uint8": {"soft_labels": BLOCKS, "evaluation_scores": SOFT},
    "top_k": {"soft_labels": BLOCKS, "evaluation_scores": SOFT},
    "again": {"evaluation_scores": SOFT},
    "ensemble": {
        "teacher": ("teacher-01",),
        "soft_labels": BLOCKS,
        "evaluation_scores": (*SOFT, "teacher"),
        "image_fidelity": ("synthetic", "random_real", "nearest_real"),
    },
    "others": {
        "teacher": ("other-quick", "other-two", "other-two-01"),
        "evaluation_scores": (
            "synthetic-soft-by-quick-convnet3-00",
            "synthetic-soft-by-two-convnet3-00",
            "teacher-quick",
            "teacher-two",
        ),
    },
    "candidates": {
        "synthetic_images": CLASSES,
        "soft_labels": BLOCKS,
        "evaluation_scores": ("synthetic-soft-convnet3-00", "synthetic-hard-convnet3-00"),
        "image_fidelity": ("synthetic",),
    },
    "explaining": {
        "prototypes": CLASSES,
        "synthetic_images": CLASSES,
        "soft_labels": BLOCKS,
        "evaluation_scores": tuple(
            f"{name}-{labels}-convnet3-00"
            for name in ("synthetic", "nearest_real")
            for labels in BOTH
        ),
        "image_fidelity": ("synthetic", "nearest_real"),
    },
    "baselines": {
        "evaluation_scores": tuple(
            f"{name}-{labels}-convnet3-00"
            for name in ("decoded_prototypes", "from_noise")
            for labels in BOTH
        ),
        "image_fidelity": ("decoded_prototypes", "from_noise"),
    },
    "weighted": {"evaluation_scores": ("synthetic-soft-convnet3-00",)},
    "plain": {
        "evaluation_scores": (
            "synthetic-soft-plain-convnet3-00",
            "random_real-soft-plain-convnet3-00",
        )
    },
    "hard": {"evaluation_scores": HARD},
}

TRAIN, TEST, VALIDATION = (
    [f"real_images/{split}-{class_id:05d}" for class_id in range(10)]
    for split in ("train", "test", "validation")
)
SYNTHETIC = [f"synthetic_images/{name}" for name in CLASSES]
PROTOTYPES = [f"prototypes/{name}" for name in CLASSES]
GENERATOR = ["generator/vae", "generator/denoiser", "generator/scheduler"]
LABELS = [f"soft_labels/{name}" for name in BLOCKS]
TEACHER = ["teacher/teacher"]
READS = {
    ("online", "synthetic-soft-convnet3-00"): TEST + SYNTHETIC + TEACHER,
    ("again", "synthetic-soft-convnet3-00"): TEST + SYNTHETIC + LABELS[:1],
    ("ensemble", "synthetic-soft-convnet3-00"): TEST + SYNTHETIC + LABELS,
    ("ensemble", "random_real-soft-convnet3-00"): [*TEST, *TRAIN, *TEACHER, "teacher/teacher-01"],
    ("ensemble", "teacher"): [*TEST, *TEACHER, "teacher/teacher-01"],
    ("others", "synthetic-soft-convnet3-00"): TEST + SYNTHETIC + LABELS,
    ("others", "synthetic-soft-by-quick-convnet3-00"): [*TEST, *SYNTHETIC, "teacher/other-quick"],
    ("others", "teacher-two"): [*TEST, "teacher/other-two", "teacher/other-two-01"],
    ("baselines", "decoded_prototypes-soft-convnet3-00"): TEST + SYNTHETIC + TEACHER,
    ("baselines", "decoded_prototypes-hard-convnet3-00"): TEST + SYNTHETIC,
    ("baselines", "from_noise-soft-convnet3-00"): TEST + GENERATOR + TEACHER,
    ("baselines", "from_noise-hard-convnet3-00"): TEST + GENERATOR,
    ("weighted", "synthetic-soft-convnet3-00"): TEST + SYNTHETIC + LABELS + PROTOTYPES,
    ("weighted", "synthetic-hard-convnet3-00"): TEST + SYNTHETIC,
    ("plain", "synthetic-soft-plain-convnet3-00"): TEST + SYNTHETIC + TEACHER,
    ("plain", "random_real-soft-plain-convnet3-00"): TEST + TRAIN + TEACHER,
    ("hard", "synthetic-hard-convnet3-00"): TEST + SYNTHETIC,
    ("validated", "synthetic-soft-convnet3-00"): VALIDATION + SYNTHETIC + LABELS,
    ("validated", "full_data-hard-convnet3-00"): VALIDATION + TRAIN,
    ("validated", "teacher"): VALIDATION + TEACHER,
}


def _recipe(edits):
    """The tiny recipe with one student and one seed, and these keys."""
    document = YAML(typ="safe").load(TINY_RECIPE)
    document["evaluation"] |= {"students": ["convnet3"], "seeds": 1}
    for path, value in edits.items():
        *sections, key = path.split(".")
        section = document
        for name in sections:
            section = section.setdefault(name, {})
        section[key] = value
    return json.dumps(document)


class Laboratory(Workspace):
    """Recipes beside the tiny one, each of which is run when it is first asked for."""

    def __init__(self, folder):
        super().__init__(folder)
        self.computed = cache(self._computed)

    def _computed(self, name):
        self.write(name, _recipe(RECIPES[name]))
        return self.run(name)

    def context(self, name):
        if name != "tiny":
            self.computed(name)
        return self.pipeline(name).context()

    def edited(self, name, edits, *, until):
        """The context of a recipe that is run up to and with a stage."""
        self.write(name, _recipe(edits))
        for stage in STAGES:
            self.pipeline(name).run_stage(stage.name)
            if stage.name == until:
                break
        return self.pipeline(name).context()


@pytest.fixture(scope="module")
def lab(finished_once, tmp_path_factory):
    folder = tmp_path_factory.mktemp("matching") / "workspace"
    shutil.copytree(finished_once.folder, folder)
    return Laboratory(folder)


@pytest.mark.parametrize("name", COMPUTED)
def test_a_setting_computes_what_depends_on_it_and_nothing_else(lab, name):
    nothing = {stage.name: () for stage in STAGES}
    assert lab.computed(name) == {
        **nothing,
        **COMPUTED[name],
        "distilled_dataset": ("distilled_dataset",),
    }


@pytest.mark.parametrize(("name", "unit"), READS)
def test_a_student_depends_on_what_it_is_trained_and_scored_on(lab, name, unit):
    assert sorted(_unit(lab.context(name), unit).inputs["upstream"]) == sorted(READS[name, unit])


@pytest.mark.parametrize("name", RECIPES)
def test_units_of_an_artifact_have_keys_of_their_own(lab, name):
    for stage, units in lab.context(name).upstream.items():
        assert len({record.key for record in units.values()}) == len(units), stage


@pytest.mark.parametrize(
    "name", ["online", "ensemble", "others", "candidates", "baselines", "hard"]
)
def test_nothing_is_computed_twice(lab, name):
    lab.computed(name)
    assert not any(lab.run(name).values())


def _unit(context, name, stage="evaluation_scores"):
    return context.store.find(stage, context.upstream[stage][name].key)


def _scores(context, name="synthetic-soft-convnet3-00"):
    return context.read("evaluation_scores", name)


def _same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def _rows(context):
    return [(row.training_set, row.labels, row.augmented) for row in score_rows(context)]


def _folder(context):
    return context.open_files("distilled_dataset", "distilled_dataset")


def _show(lab, name):
    lab.computed(name)
    environment = lab.environment() | {"COLUMNS": "200"}
    result = CliRunner().invoke(app, ["show", name], env=environment)
    assert result.exception is None, result.exception
    return result.stdout.splitlines()


# Labels: where they come from, how they are stored, how many there are


def test_online_there_are_no_labels_in_the_store_nor_in_the_data_set(lab):
    context = lab.context("online")
    assert context.upstream["soft_labels"] == {}
    with_labels, without = (_folder(each) for each in (lab.context("tiny"), context))
    names = [{path.name for path in folder.iterdir()} for folder in (with_labels, without)]
    assert names[0] - names[1] == {"soft_labels.zarr", "views.zarr"}
    cards = [(folder / "README.md").read_text() for folder in (with_labels, without)]
    assert ["soft_labels.zarr" in card for card in cards] == [True, False]
    assert ["the students asked the teacher as they trained" in c for c in cards] == [False, True]


def _trained(context, *names):
    """The arrays of these units, computed anew and not stored."""
    stage = EvaluationScores()
    units = [unit for unit in stage.plan(context) if unit.name in names]
    return {unit.name: arrays for unit, arrays in stage.compute(context, units)}


@pytest.mark.parametrize("stored", ["tiny", "uint8", "top_k"])
def test_a_student_online_is_the_one_on_stored_labels_but_for_their_rounding(
    lab, stored, monkeypatch
):
    """The teacher's words rounded as the store does, everything else is the same to the bit."""
    online, settings = lab.context("online"), lab.context(stored).recipe.settings.soft_labels

    def rounded(*arguments):
        return unpack_logits(pack_logits(label_views(*arguments), settings), classes=10)

    monkeypatch.setattr(d4m.soft_labels, "label_views", rounded)
    found = _trained(online, *SOFT)
    assert list(found) == list(SOFT)
    for name in SOFT:
        assert _same(found[name], _scores(lab.context(stored), name)), name


@pytest.mark.parametrize("name", SOFT)
def test_rounding_hardly_changes_what_a_student_learns(lab, name):
    exact = _scores(lab.context("online"), name)["curve_losses"]
    assert exact.shape == (4,)
    # float16 keeps 11 bits of a logit, uint8 8 of the gap between the lowest and the highest.
    for stored, tolerance in (("tiny", 2e-3), ("uint8", 2e-2)):
        losses = _scores(lab.context(stored), name)["curve_losses"]
        assert losses == pytest.approx(exact, rel=tolerance)
        assert not np.array_equal(losses, exact)


def _exact_and_stored(context):
    """The teacher's gaps below each row's highest logit: asked anew, and as they are replayed."""
    images, teacher = synthetic_set(context), load_teacher(context)
    labels = StoredLabels(context, images)
    exact = np.stack([label_views(images, teacher, each.views) for each in labels])
    stored = np.stack([each.logits for each in labels])
    return (each.max(axis=-1, keepdims=True) - each for each in (exact, stored))


def _blocks(context):
    units = [context.read("soft_labels", name) for name in BLOCKS]
    return {name: np.concatenate([unit[name] for unit in units]) for name in units[0]}


def test_labels_of_a_byte_are_replayed_within_half_a_step(lab):
    context = lab.context("uint8")
    arrays = _blocks(context)
    assert {k: (v.shape, str(v.dtype)) for k, v in arrays.items()} == {
        "gaps": ((4, 30, 10), "uint8"),
        "scales": ((4, 30), "float16"),
    }
    exact, stored = _exact_and_stored(context)
    step = arrays["scales"].astype(np.float64)[..., None] / 255
    assert (np.abs(stored - exact) <= step / 2 + 1e-5).all()
    highest = exact.argmin(axis=-1)[..., None]
    assert not np.take_along_axis(stored, highest, axis=-1).any()


def test_the_highest_labels_are_replayed_within_half_a_step_and_so_is_the_mass_of_the_rest(lab):
    context = lab.context("top_k")
    arrays = _blocks(context)
    assert {k: (v.shape, str(v.dtype)) for k, v in arrays.items()} == {
        "classes": ((4, 30, 3), "uint8"),
        "gaps": ((4, 30, 3), "uint8"),
        "scales": ((4, 30), "float16"),
    }
    exact, stored = _exact_and_stored(context)
    order = np.argsort(exact, axis=-1, kind="stable")
    assert np.array_equal(arrays["classes"], order[..., :3])
    exact, stored = (np.take_along_axis(each, order, axis=-1) for each in (exact, stored))
    half = arrays["scales"].astype(np.float64) / 255 / 2 + 1e-5
    assert (np.abs(stored - exact)[..., :3] <= half[..., None]).all()
    masses = [logsumexp(-each[..., 3:].astype(np.float64), axis=-1) for each in (exact, stored)]
    assert (np.abs(masses[0] - masses[1]) <= half).all()
    assert (stored[..., 3:] == stored[..., 3:4]).all()


@pytest.mark.parametrize("name", ["tiny", "uint8", "top_k", "again"])
def test_the_data_set_that_is_taken_away_holds_the_labels_as_stored_and_their_views(lab, name):
    context = lab.context(name)
    labels = StoredLabels(context, synthetic_set(context))
    folder = _folder(context)
    packed = zarr.open_group(folder / "soft_labels.zarr", mode="r")
    arrays = {key: packed[key][:] for key in packed.array_keys()}
    views = zarr.open_group(folder / "views.zarr", mode="r")
    assert len(labels) == {"again": 2}.get(name, 4)
    assert np.array_equal(unpack_logits(arrays, 10), np.stack([each.logits for each in labels]))
    for key in views.array_keys():
        assert np.array_equal(views[key][:], np.stack([getattr(e.views, key) for e in labels]))
    card = (folder / "README.md").read_text()
    assert ("`gaps * scales / 255`" in card) == (name in {"uint8", "top_k"})


def _student():
    """The first student before its training, and the stream of that training."""
    seed = stream_seed(0, "student", "convnet3", 0)
    weights = stream_seed(seed, "weights")
    model = build_classifier(StudentSettings(), channels=1, size_px=8, classes=10, seed=weights)
    return model, stream_seed(seed, "training")


def test_where_fewer_epochs_are_labelled_their_labels_come_again(lab):
    tiny, again = lab.context("tiny"), lab.context("again")
    assert again.upstream["soft_labels"] == {BLOCKS[0]: tiny.upstream["soft_labels"][BLOCKS[0]]}
    images = synthetic_set(tiny)
    labels = StoredLabels(tiny, images)
    model, seed = _student()
    curve = train_with_soft_labels(
        model,
        images,
        [labels[0], labels[1], labels[0], labels[1]],
        epochs=4,
        matching=MatchingSettings(),
        optimizer=OptimizerSettings(),
        seed=seed,
    )
    found, all_labelled = _scores(again), _scores(tiny)
    assert found["curve_epochs"].tolist() == curve.epochs == [1, 2, 3, 4]
    assert found["curve_losses"].tolist() == curve.losses
    same = (found["curve_losses"] == all_labelled["curve_losses"]).tolist()
    assert same == [True, True, False, False]


def test_a_last_block_may_hold_fewer_epochs(lab):
    context = lab.edited("three", {"soft_labels.labelled_epochs": 3}, until="soft_labels")
    tiny = lab.context("tiny")
    shapes = [context.read("soft_labels", name)["logits"].shape for name in BLOCKS]
    assert shapes == [(2, 30, 10), (1, 30, 10)]
    last = (each.read("soft_labels", BLOCKS[1])["logits"][0] for each in (context, tiny))
    assert np.array_equal(*last)


def test_more_labelled_epochs_than_there_are_is_all_of_them(lab):
    context = lab.edited("five", {"soft_labels.labelled_epochs": 5}, until="soft_labels")
    assert context.upstream["soft_labels"] == lab.context("tiny").upstream["soft_labels"]


# The teacher: several of them


def test_members_have_seeds_of_their_own_and_answer_with_their_mean(lab):
    tiny, context = lab.context("tiny"), lab.context("ensemble")
    assert context.upstream["teacher"]["teacher"] == tiny.upstream["teacher"]["teacher"]
    files = [
        context.open_files("teacher", name) / "model.safetensors"
        for name in ("teacher", "teacher-01")
    ]
    assert files[0].read_bytes() != files[1].read_bytes()
    ensemble, first = load_teacher(context), load_teacher(tiny)
    pixels = synthetic_set(context).pixels[torch.arange(30)]
    with torch.inference_mode():
        mean, own = ensemble(pixels), first(pixels)
        members = [member(pixels) for member in ensemble.members]
    assert not ensemble.training
    assert torch.equal(members[0], own)
    assert not torch.allclose(members[1], own, atol=0.1)
    assert torch.allclose(mean, (members[0] + members[1]) / 2, atol=1e-6)


def test_labels_and_the_teachers_own_score_are_those_of_the_mean(lab):
    context = lab.context("ensemble")
    images, teacher = synthetic_set(context), load_teacher(context)
    labels = StoredLabels(context, images)[3]
    with torch.inference_mode():
        logits = teacher(replay_views(images.pixels, labels.views, np.arange(30)))
    assert labels.logits == pytest.approx(logits.numpy(), rel=1e-3, abs=1e-3)  # float16
    assert _teachers_own(context) == pytest.approx(_accuracy(context, teacher, "test"))


def _teachers_own(context, name="teacher"):
    return float(_scores(context, name)["top1"])


def test_another_teacher_labels_for_students_of_its_own(lab):
    """The first epoch is one batch, whose loss is that of the untrained student."""
    context = lab.context("others")
    images, model = synthetic_set(context), _student()[0]
    views = StoredLabels(context, images).views(0)
    pixels = replay_views(images.pixels, views, np.arange(30))
    for name in ("quick", "two"):
        teacher = load_teacher(context, name)
        assert _teachers_own(context, f"teacher-{name}") == pytest.approx(
            _accuracy(context, teacher, "test")
        )
        with torch.inference_mode():
            verdicts = teacher(pixels).half().float()
            loss = kl_loss(model(pixels), verdicts, temperature=20.0).mean()
        found = _scores(context, f"synthetic-soft-by-{name}-convnet3-00")["curve_losses"][0]
        assert found == pytest.approx(float(loss), rel=1e-3)
    assert len(load_teacher(context, "two").members) == 2


def test_teachers_and_students_make_a_matrix(lab):
    rows = score_rows(lab.context("others"))
    matrix = teacher_by_student(rows)
    units = {
        "": "synthetic-soft",
        "quick": "synthetic-soft-by-quick",
        "two": "synthetic-soft-by-two",
    }
    assert list(matrix) == list(units)
    for teacher, unit in units.items():
        assert list(matrix[teacher]) == ["convnet3"]
        found = _scores(lab.context("others"), f"{unit}-convnet3-00")["top1"]
        assert matrix[teacher]["convnet3"].top1 == found
    assert teacher_by_student(score_rows(lab.context("tiny"))) == {}
    shown = [line.split() for line in _show(lab, "others")]
    assert [line[2:5] for line in shown if line[:1] == ["synthetic"] and "soft" in line[2]] == [
        ["soft", "convnet3", f"{100 * matrix['']['convnet3'].top1:.2f}"],
        ["soft,", "quick", "convnet3"],
        ["soft,", "two", "convnet3"],
    ]
    assert {tuple(line[:4]) for line in shown if line[:1] == ["teacher"]} == {
        ("teacher", "all", "-", "convnet3"),
        ("teacher", "all", "quick", "convnet3"),
        ("teacher", "all", "two", "test_vit"),
    }


def test_other_teachers_have_names_of_their_own(lab):
    lab.write("same", _recipe({"teacher.others": [{"name": "one"}, {"name": "one"}]}))
    with pytest.raises(RecipeError, match=r"teacher\.others: other teachers must differ in `name`"):
        lab.pipeline("same")


def _accuracy(context, classifier, split):
    images = real_set(context, split)
    with torch.inference_mode():
        found = classifier(images.pixels[torch.arange(len(images))]).argmax(1)
    return float((found == images.class_ids).double().mean())


def test_ready_made_weights_are_those_of_one_network(lab):
    lab.write("both", _recipe({"teacher.members": 2, "teacher.weights": "timm"}))
    wanted = r"both\.yaml:\d+: teacher: `weights` are those of one network, found `members: 2`"
    with pytest.raises(RecipeError, match=wanted):
        lab.pipeline("both")


# Prototypes that explain the teacher


def test_prototypes_that_explain_the_teacher_depend_on_it_and_on_every_class(lab):
    context = lab.context("explaining")
    latents = [f"latents/{name}" for name in CLASSES]
    for name in CLASSES:
        upstream = _unit(context, name, "prototypes").inputs["upstream"]
        assert sorted(upstream) == sorted(latents + TRAIN + TEACHER)


def test_each_cluster_is_represented_by_one_of_its_real_latents(lab):
    tiny, context = lab.context("tiny"), lab.context("explaining")
    medoids = list[bool]()
    for class_id, name in enumerate(CLASSES):
        latents = context.read("latents", name)["latents"]
        found, means = context.read("prototypes", name), tiny.read("prototypes", name)
        seed = stream_seed(0, "prototypes", class_id)
        fitted = fit_prototypes(latents, tiny.recipe.settings.prototypes, seed=seed)
        assert fitted.clusters[found["nearest_images"]].tolist() == [0, 1, 2]
        assert np.array_equal(found["prototypes"], latents[found["nearest_images"]])
        assert np.array_equal(found["cluster_shares"], means["cluster_shares"])
        assert found["inertia"] > means["inertia"]
        medoids += list(found["nearest_images"] == means["nearest_images"])
    assert np.mean(medoids) < 0.5


def test_a_prompt_does_not_reach_prototypes_that_explain_the_teacher(lab):
    lab.computed("explaining")
    lab.write("bolder", _recipe(RECIPES["explaining"] | {"prompts.per_class": {"three": "bold"}}))
    plan = lab.pipeline("bolder").plan()
    assert {unit.state for unit in plan["prototypes"]} == {"cached"}
    computed = [unit.name for unit in plan["synthetic_images"] if unit.state == "compute"]
    assert computed == ["class-00003"]


def test_more_prototypes_than_one_regression_can_hold_are_refused(lab, monkeypatch):
    monkeypatch.setattr("d4m.stages.prototypes._MOST_EXPLAINING", 29)
    with pytest.raises(PrototypeError, match="wanted at most 29, found 30; set it to `medoid`"):
        lab.edited("many", RECIPES["explaining"] | {"prototypes.starts": 2}, until="prototypes")


# Synthetic images: several candidates


@pytest.fixture(scope="module")
def drawn(lab):
    """Seeds and images of every candidate, drawn outside of the stage: (class, prototype, ...)."""
    context = lab.context("candidates")
    settings = context.recipe.settings
    seeds = np.array(
        [
            [
                [stream_seed(seed, row), stream_seed(seed, row, 1), stream_seed(seed, row, 2)]
                for row in range(3)
            ]
            for seed in (stream_seed(0, "synthesis", class_id) for class_id in range(10))
        ]
    )
    requests = [
        ImageRequest(prototype, context.source.class_table.names[class_id], int(seed))
        for class_id, name in enumerate(CLASSES)
        for prototype, own in zip(
            context.read("prototypes", name)["prototypes"].astype(np.float32),
            seeds[class_id],
            strict=True,
        )
        for seed in own
    ]
    pipeline = load_pipeline(context)
    use_scheduler(pipeline, settings.synthesis)
    batches = synthesize_images(
        pipeline,
        requests,
        negative_prompt=settings.prompts.negative,
        settings=settings.synthesis,
        compute=context.compute,
    )
    return seeds, np.concatenate(list(batches)).reshape(10, 3, 3, 8, 8, 1)


def test_of_several_candidates_the_one_that_the_teacher_recognises_is_kept(lab, drawn):
    context, (seeds, candidates) = lab.context("candidates"), drawn
    with torch.inference_mode():
        logits = load_teacher(context)(to_pixels(candidates.reshape(90, 8, 8, 1)))
    verdicts = logits.softmax(1).reshape(10, 3, 3, 10)
    for class_id, name in enumerate(CLASSES):
        arrays = context.read("synthetic_images", name)
        best = verdicts[class_id, ..., class_id].argmax(1).numpy()
        assert arrays["seeds"].tolist() == seeds[class_id, np.arange(3), best].tolist()
        assert np.array_equal(arrays["images"], candidates[class_id, np.arange(3), best])


def test_the_first_candidate_is_the_image_of_a_prototype_with_no_other(lab, drawn):
    seeds, candidates = drawn
    tiny, context = lab.context("tiny"), lab.context("candidates")
    first = list[bool]()
    for class_id, name in enumerate(CLASSES):
        alone, chosen = (each.read("synthetic_images", name) for each in (tiny, context))
        assert alone["seeds"].tolist() == seeds[class_id, :, 0].tolist()
        assert np.array_equal(alone["images"], candidates[class_id, :, 0])
        assert np.array_equal(alone["decoded_prototypes"], chosen["decoded_prototypes"])
        first += (alone["seeds"] == chosen["seeds"]).tolist()
    assert 0 < sum(first) < 30


def test_the_first_image_of_a_class_is_chosen_by_the_verdict_whatever_the_diversity(lab):
    edits = RECIPES["candidates"] | {"synthesis.diversity": 1.0}
    diverse = lab.edited("diverse", edits, until="synthetic_images")
    context = lab.context("candidates")
    seeds, others = (
        np.stack([each.read("synthetic_images", name)["seeds"] for name in CLASSES])
        for each in (context, diverse)
    )
    assert np.array_equal(seeds[:, 0], others[:, 0])
    assert not np.array_equal(seeds[:, 1:], others[:, 1:])


def test_images_follow_the_teacher_only_where_it_chooses(lab):
    lab.computed("candidates")
    for edits, state in ((RECIPES["candidates"], "follows"), ({}, "cached")):
        lab.write("tutored", _recipe(edits | {"teacher.epochs": 3}))
        plan = lab.pipeline("tutored").plan()
        assert [unit.state for unit in plan["teacher"]] == ["compute"]
        assert {unit.state for unit in plan["synthetic_images"]} == {state}
        assert {unit.state for unit in plan["soft_labels"]} == {"follows"}


# Training sets, labels and images that students are compared on


def test_every_baseline_has_its_rows_in_the_order_of_the_recipe(lab):
    assert _rows(lab.context("baselines")) == [
        *((name, labels, True) for name in ("synthetic", *BASELINES[:-1]) for labels in BOTH),
        ("full_data", "hard", True),
        ("teacher", "hard", True),
    ]


def test_decoded_prototypes_are_the_stored_ones(lab):
    context = lab.context("baselines")
    images = read_training_set(context, "decoded_prototypes", seed=0)
    stored = [context.read("synthetic_images", name)["decoded_prototypes"] for name in CLASSES]
    assert torch.equal(images.pixels[torch.arange(30)], to_pixels(np.concatenate(stored)))
    assert torch.equal(images.class_ids, synthetic_set(context).class_ids)


def _from_noise(context):
    images = read_training_set(context, "from_noise", seed=0)
    assert images.class_ids.tolist() == [class_id for class_id in range(10) for _ in range(3)]
    return images.pixels[torch.arange(30)]


def test_images_from_noise_depend_on_prompts_and_not_on_prototypes(lab):
    context = lab.context("baselines")
    ours = _from_noise(context)
    assert len(ours.flatten(1).unique(dim=0)) == 30

    edits = RECIPES["baselines"] | {"prototypes.representative": "medoid"}
    medoids = lab.edited("medoids", edits, until="prototypes")
    assert not set(medoids.upstream["prototypes"].values()) & set(
        context.upstream["prototypes"].values()
    )
    assert torch.equal(_from_noise(medoids), ours)

    edits = RECIPES["baselines"] | {"prompts.per_class": {"three": "a bold three"}}
    bold = lab.edited("bold", edits, until="prototypes")
    other = (_from_noise(bold) != ours).flatten(1).any(1)
    assert {row // 3 for row in other.nonzero().flatten().tolist()} == {3}

    states = [
        {unit.name: unit.state for unit in lab.pipeline(name).plan()["evaluation_scores"]}
        for name in ("medoids", "bold")
    ]
    for labels in BOTH:
        name = f"from_noise-{labels}-convnet3-00"
        assert [each[name] for each in states] == ["cached", "compute"]


def test_class_labels_alone_have_rows_of_class_labels_alone(lab):
    context = lab.context("hard")
    assert context.upstream["soft_labels"] == {}
    sets = ("synthetic", "random_real", "nearest_real", "full_data", "teacher")
    assert _rows(context) == [(name, "hard", True) for name in sets]
    settings = _unit(context, "synthetic-hard-convnet3-00").inputs["settings"]
    assert settings["epochs"] == 3
    assert settings["augmentation"]["one_of"]
    assert settings["augmentation"]["rotation_degrees"] == 15
    optimizer = settings["optimizer"]
    assert [optimizer[key] for key in ("name", "learning_rate", "schedule")] == [
        "sgd",
        0.01,
        "step",
    ]
    assert _scores(context, "synthetic-hard-convnet3-00")["curve_epochs"].tolist() == [1, 2, 3]
    assert _scores(context, "full_data-hard-convnet3-00")["curve_epochs"].tolist() == [1]
    assert not [line for line in _show(lab, "hard") if "DD-Ranking" in line]


def test_students_without_augmentation_see_the_images_as_they_are(lab):
    context = lab.context("plain")
    assert [row for row in _rows(context) if not row[2]] == [
        ("synthetic", "soft", False),
        ("random_real", "soft", False),
    ]
    [run] = [run for run in student_runs(context) if run.unit_name.startswith("synthetic-soft-p")]
    settings = soft_label_settings(context, run)
    images = synthetic_set(context)
    pixels = images.pixels[torch.arange(30)]
    views = d4m.soft_labels.draw_epoch(images, settings.augmentation, seed=0, epoch=0)
    # An identity up to the rounding of the places that are sampled.
    assert torch.allclose(replay_views(images.pixels, views, np.arange(30)), pixels, atol=1e-5)
    with torch.inference_mode():
        verdicts = load_teacher(context)(pixels).half().float()
        model, _ = _student()
        loss = kl_loss(model(pixels), verdicts, temperature=20.0).mean()
    found = _scores(context, "synthetic-soft-plain-convnet3-00")["curve_losses"]
    assert found[0] == pytest.approx(float(loss), rel=1e-3)  # float16 at another rounding
    assert len(found) == 4


def test_dd_ranking_is_that_of_the_rows(lab):
    rows = score_rows(lab.context("plain"))
    top1 = {(row.training_set, row.labels, row.augmented): row.top1 for row in rows}
    robust = label_robust_score(
        real_hard=top1["full_data", "hard", True],
        synthetic_hard=top1["synthetic", "hard", True],
        synthetic=top1["synthetic", "soft", True],
        random=top1["random_real", "soft", True],
    )
    augmented = augmentation_robust_score(
        synthetic_augmented=top1["synthetic", "soft", True],
        random_augmented=top1["random_real", "soft", True],
        synthetic_plain=top1["synthetic", "soft", False],
        random_plain=top1["random_real", "soft", False],
    )
    recovery, improvement = robust.hard_label_recovery, robust.improvement_over_random
    parts = f"recovery {100 * recovery:.2f}, improvement over random {100 * improvement:.2f}"
    assert [line.rstrip() for line in _show(lab, "plain") if "DD-Ranking" in line] == [
        f"DD-Ranking, label-robust score:        {robust.score:.1f} (hard-label {parts})",
        f"DD-Ranking, augmentation-robust score: {augmented:.1f}",
    ]
    rows = [line.split()[:7] for line in _show(lab, "plain") if ", as they are" in line]
    assert rows == [
        ["synthetic,", "as", "they", "are", "3", "soft", "convnet3"],
        ["random_real,", "as", "they", "are", "3", "soft", "convnet3"],
    ]


def test_an_image_weighs_as_much_as_its_cluster(lab):
    """The first epoch is one batch, whose loss is that of the untrained student."""
    context = lab.context("weighted")
    images = synthetic_set(context)
    label = StoredLabels(context, images)[0]
    model, _ = _student()
    with torch.inference_mode():
        logits = model(replay_views(images.pixels, label.views, np.arange(30)))
        losses = kl_loss(logits, torch.from_numpy(label.logits), temperature=20.0)
    weights = cluster_weights(context)
    assert float(weights.std()) > 0.1
    for name, loss in (("weighted", (weights * losses).mean()), ("tiny", losses.mean())):
        found = _scores(lab.context(name))["curve_losses"]
        # The same sums in another order.
        assert found[0] == pytest.approx(float(loss), rel=1e-5)


def test_a_student_is_scored_on_validation_images_where_the_recipe_says_so(lab):
    context = lab.context("validated")
    counts = {
        split: sum(len(context.image_index(split, class_id).image_ids) for class_id in range(10))
        for split in ("train", "validation", "test")
    }
    assert sum(counts.values()) == 1797
    assert counts["test"] == 360
    assert counts["validation"] == pytest.approx(0.1 * 1437, abs=5)  # rounded class by class
    on_validation, on_test = (
        _accuracy(context, load_teacher(context), split) for split in ("validation", "test")
    )
    assert _teachers_own(context) == pytest.approx(on_validation)
    assert _teachers_own(context) != pytest.approx(on_test)
    assert "validation top-1 %" in _show(lab, "validated")[0]


def test_the_other_split_scores_the_same_students_anew(lab):
    """Nothing before the scores is computed again, and their settings say which images it was."""
    lab.computed("validated")
    lab.write("tested", _recipe(RECIPES["validated"] | {"evaluation.split": "test"}))
    plan = lab.pipeline("tested").plan()
    names = [stage.name for stage in STAGES]
    for stage in names[: names.index("evaluation_scores")]:
        assert {unit.state for unit in plan[stage]} == {"cached"}, stage
    assert {unit.state for unit in plan["evaluation_scores"]} == {"compute"}
    assert {unit.state for unit in plan["image_fidelity"]} == {"compute"}
    settings = _unit(lab.context("validated"), "teacher").inputs["settings"]
    assert settings["split"] == "validation"


def test_validation_images_must_have_been_held_out(lab):
    lab.write("held_in", _recipe({"evaluation.split": "validation"}))
    with pytest.raises(RecipeError, match=r"set `dataset\.validation_share`, such as to 0\.1$"):
        lab.pipeline("held_in")


def test_random_images_of_another_seed_are_others_in_every_key(lab):
    """Also where all that is read is the same, such as a teacher with ready-made weights."""
    lab.write("seeded", _recipe({"seed": 1}))
    tiny = lab.context("tiny")
    seeded = replace(lab.pipeline("seeded").context(), upstream=tiny.upstream)
    ours, theirs = (read_training_set(each, "random_real", seed=0) for each in (tiny, seeded))
    assert not torch.equal(ours.pixels[torch.arange(30)], theirs.pixels[torch.arange(30)])
    stages = {stage.name: stage for stage in STAGES}
    for stage, name in (
        ("evaluation_scores", "random_real-soft-convnet3-00"),
        ("evaluation_scores", "random_real-hard-convnet3-00"),
        ("image_fidelity", "random_real"),
    ):
        keys = [{u.name: u.key for u in stages[stage].plan(each)} for each in (tiny, seeded)]
        assert keys[0][name] != keys[1][name], stage


# What people see of them


def test_the_check_of_the_class_order_reads_any_format_and_none(lab):
    context = lab.context("uint8")
    logits = unpack_logits(context.read("soft_labels", BLOCKS[0]), 10).mean(axis=0)
    verdicts = logits.reshape(10, 3, 10).mean(axis=1).argmax(axis=1)
    wrong = {str(c): int(v) for c, v in enumerate(verdicts) if c != v}
    outcome = class_order.examine(lab.pipeline("uint8"))
    assert outcome.metadata["class_taken_for"].value == wrong
    assert outcome.passed == (not wrong)

    lab.computed("online")
    outcome = class_order.examine(lab.pipeline("online"))
    assert outcome.passed
    assert outcome.metadata["note"].value == "the teacher labels online: no labels are stored"


def test_the_check_of_the_scores_takes_no_row_of_another_kind(lab):
    """Not those without augmentation; and without soft labels there is nothing to compare."""
    rows = {(r.training_set, r.labels, r.augmented): r for r in score_rows(lab.context("plain"))}
    outcome = beats_random_real.examine(lab.pipeline("plain"))
    for name in ("synthetic", "random_real"):
        assert outcome.metadata[f"{name}_top1"].value == rows[name, "soft", True].top1
    lab.computed("hard")
    outcome = beats_random_real.examine(lab.pipeline("hard"))
    assert outcome.passed
    assert list(outcome.metadata) == ["note"]


def test_the_score_table_tells_rows_without_augmentation_apart(lab):
    records = [record.data for record in score_table(score_rows(lab.context("plain"))).records]
    found = [(each["training set"], each["labels"], each["views"]) for each in records]
    assert len(set(found)) == len(found)
    assert [each[0] for each in found if each[2] == "none"] == ["synthetic", "random_real"]


def test_formats_keep_their_settings_out_of_one_anothers_keys(lab):
    """How many classes are kept does not matter to a format that keeps them all."""
    lab.computed("uint8")
    lab.write("kept", _recipe(RECIPES["uint8"] | {"soft_labels.top_k": 7}))
    plan = lab.pipeline("kept").plan()
    assert SoftLabelSettings().top_k != 7
    for stage in ("soft_labels", "evaluation_scores"):
        assert {unit.state for unit in plan[stage]} == {"cached"}
