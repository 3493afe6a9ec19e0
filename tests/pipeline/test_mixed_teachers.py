"""Ensembles of several architectures as a teacher."""

import pytest
import torch

from d4m.classifiers.predict import predict_logits
from d4m.errors import RecipeError
from d4m.settings import TeacherSettings
from d4m.stages.teacher import load_teacher, teacher_inputs
from d4m.stages.training_sets import real_set
from tests.conftest import TINY_RECIPE, Workspace

MIXED = TINY_RECIPE.replace("teacher: {", "teacher: {ensemble_with: [test_vit], ")
MEMBERS = ["teacher", "teacher-01"]


def test_labels_are_means_over_both_architectures(finished: Workspace):
    finished.write("tiny", MIXED)
    report = finished.pipeline().run_stage("teacher")
    assert report.computed == ("teacher-01",)  # the first network is that of the tiny recipe
    context = finished.pipeline().open_context()
    assert [unit for _, unit in teacher_inputs(context).reads] == MEMBERS
    pixels = real_set(context, "test", size_px=8).pixels[torch.arange(40)]
    both, *each = (
        predict_logits(load_teacher(context, names), pixels, "float32")
        for names in (MEMBERS, MEMBERS[:1], MEMBERS[1:])
    )
    assert not torch.allclose(each[0], each[1], atol=0.1)
    torch.testing.assert_close(both, (each[0] + each[1]) / 2)


def test_each_architecture_has_as_many_members():
    teacher = TeacherSettings.model_validate({"ensemble_with": ["resnet18"], "members": 2})
    found = [each.architecture for each in teacher.networks(ipc=10)]
    assert found == ["convnet3", "resnet18", "convnet3", "resnet18"]


def test_an_architecture_that_cannot_be_built_is_refused_first(workspace: Workspace):
    workspace.write("tiny", MIXED.replace("[test_vit]", "[no_such_network]"))
    with pytest.raises(RecipeError, match=r"teacher\.ensemble_with.*no_such_network"):
        workspace.pipeline().preflight()


def test_weights_from_elsewhere_are_one_network():
    with pytest.raises(ValueError, match="those of one network"):
        TeacherSettings.model_validate({"weights": "timm", "ensemble_with": ["resnet18"]})
