"""The teacher, the members of an ensemble, and other teachers."""

import numpy as np
import pytest
import torch

from d4m.errors import RecipeError
from d4m.stages.score_table import teacher_by_student
from d4m.stages.soft_labels import StoredLabels
from d4m.stages.training_sets import synthetic_set
from d4m.training.augment import replay_views
from d4m.training.losses import kl_loss
from tests.conftest import TINY_RECIPE
from tests.pipeline.laboratory import (
    QUICK,
    TWO,
    accuracy_on,
    recipe_text,
    rows_of,
    scores_of,
    shown_lines,
    teacher_of,
    teachers_own_top1,
    untrained_student,
)


def test_members_have_seeds_of_their_own_and_answer_with_their_mean(lab):
    tiny, context = lab.context("tiny"), lab.context("ensemble")
    assert context.upstream["teacher"]["teacher"] == tiny.upstream["teacher"]["teacher"]
    files = [
        context.open_files("teacher", name) / "model.safetensors"
        for name in ("teacher", "teacher-01")
    ]
    assert files[0].read_bytes() != files[1].read_bytes()
    ensemble, first = teacher_of(context), teacher_of(tiny)
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
    images, teacher = synthetic_set(context), teacher_of(context)
    labels = StoredLabels.of_recipe(context, images, context.recipe.settings)[3]
    with torch.inference_mode():
        logits = teacher(replay_views(images.pixels, labels.views, np.arange(30)))
    assert labels.logits == pytest.approx(logits.numpy(), rel=1e-3, abs=1e-3)  # float16
    assert teachers_own_top1(context) == pytest.approx(accuracy_on(context, teacher, "test"))


def test_another_teacher_labels_for_students_of_its_own(lab):
    """The first epoch is one batch, whose loss is that of the untrained student."""
    context = lab.context("others")
    images, model = synthetic_set(context), untrained_student()[0]
    views = StoredLabels.of_recipe(context, images, context.recipe.settings).views(0)
    pixels = replay_views(images.pixels, views, np.arange(30))
    for name in (QUICK, TWO):
        teacher = teacher_of(context, name)
        assert teachers_own_top1(context, f"teacher-{name}") == pytest.approx(
            accuracy_on(context, teacher, "test")
        )
        with torch.inference_mode():
            logits = teacher(pixels).half().float()
            loss = kl_loss(model(pixels), logits, temperature=20.0).mean()
        found = scores_of(context, f"synthetic-soft-by-{name}-convnet3-00")["curve_losses"][0]
        assert found == pytest.approx(float(loss), rel=1e-3)
    assert len(teacher_of(context, TWO).members) == 2


def test_teachers_and_students_make_a_matrix(lab):
    rows = rows_of(lab.context("others"))
    matrix = teacher_by_student(rows)
    units = {
        "": "synthetic-soft",
        "quick": f"synthetic-soft-by-{QUICK}",
        "two": f"synthetic-soft-by-{TWO}",
    }
    assert list(matrix) == list(units)
    for teacher, unit in units.items():
        assert list(matrix[teacher]) == ["convnet3"]
        found = scores_of(lab.context("others"), f"{unit}-convnet3-00")["top1"]
        assert matrix[teacher]["convnet3"].top1 == found
    assert teacher_by_student(rows_of(lab.context("tiny"))) == {}
    shown = [line.split() for line in shown_lines(lab, "others")]
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
    lab.write("same", recipe_text({"teacher.others": [{"name": "one"}, {"name": "one"}]}))
    with pytest.raises(RecipeError, match=r"teacher\.others: other teachers must differ in `name`"):
        lab.pipeline("same")


def test_ready_made_weights_are_those_of_one_network(lab):
    lab.write("both", recipe_text({"teacher.members": 2, "teacher.weights": "timm"}))
    wanted = r"both\.yaml:\d+: teacher: `weights` are those of one network, found `members: 2`"
    with pytest.raises(RecipeError, match=wanted):
        lab.pipeline("both")


def test_ready_made_weights_label_in_the_precision_they_are_given(lab):
    """The weights are the same, so the labels' keys must tell the two apart."""
    file = lab.context("tiny").open_files("teacher", "teacher") / "model.safetensors"
    exact, rounded = (
        lab.edited(
            precision,
            {
                "teacher.weights": str(file),
                "teacher.input": {"mean": [0.5], "deviation": [0.5]},
                "teacher.optimizer.precision": precision,
            },
            until="soft_labels",
        )
        for precision in ("float32", "bfloat16")
    )
    assert exact.upstream["teacher"] == rounded.upstream["teacher"]
    logits = [
        context.read("soft_labels", "epochs-000000")["logits"].astype(np.float32)
        for context in (exact, rounded)
    ]
    assert not np.array_equal(*logits)
    # bfloat16 has 8 bits; what a ConvNet says then is within a few steps of it.
    assert np.abs(logits[0] - logits[1]).max() < 0.04 * np.ptp(logits[0])


def test_a_file_that_holds_no_weights_is_refused(workspace):
    (workspace.recipes / "junk.safetensors").write_bytes(b"no weights")
    workspace.write(
        "tiny", TINY_RECIPE.replace("teacher: {", "teacher: {weights: junk.safetensors, ")
    )
    wanted = (
        r"tiny\.yaml:\d+: teacher\.weights: .*junk\.safetensors is not a file of weights in safe"
    )
    with pytest.raises(RecipeError, match=wanted):
        workspace.pipeline().run_stage("real_images")
    assert not (workspace.store / "objects").exists()
