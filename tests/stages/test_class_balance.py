"""The recipe's images decide whether training is balanced, and keys say so only where it is."""

from d4m.stages.class_balance import MOST_UNEQUAL, balance_inputs, choose_balance
from d4m.stages.student_runs import run_inputs, student_runs
from d4m.stages.teacher import Teacher
from tests.conftest import FOLDER_RECIPE


def _keyed(workspace, large, *, teacher="{}", full_data="{}"):
    """Return what the keys of teacher, full_data and another student say of balance."""
    for name, count in (("large", large), ("small", 5)):
        for number in range(count):
            workspace.draw(name, str(number))
    text = FOLDER_RECIPE.replace("test_share: 0.3", "test_share: 0.2")
    text = text.replace("teacher: {epochs: 1, options: {width: 16}}", f"teacher: {teacher}")
    text = text.replace("baselines: []", f"baselines: [full_data], full_data: {full_data}")
    assert teacher in text
    workspace.write("mine", text)
    pipeline = workspace.pipeline("mine")
    pipeline.run_stage("real_images")
    context = pipeline.open_context()
    (unit,) = Teacher().plan(context)
    runs = {
        run.training_set: run
        for run in student_runs(context.recipe.settings)
        if run.labels == "hard"
    }
    seen = {"synthetic_images": {}, "prototypes": {}, "generator": {}, "teacher": {}}
    for artifact, units in seen.items():
        context = context.seeing(artifact, units)
    students = [run_inputs(context, runs[name]).settings for name in ("full_data", "synthetic")]
    return [each.get("class_balance") for each in (unit.settings, *students)]


def test_auto_balances_beyond_its_ratio_and_not_at_it():
    small = 100
    most = int(MOST_UNEQUAL * small)
    assert choose_balance("auto", [most, small, 0]) == "none"
    assert choose_balance("auto", [most + 1, small, 0]) == "sampling"
    assert choose_balance("auto", [0, 0]) == "none"
    for named in ("none", "sampling", "weights"):
        assert choose_balance(named, [1, 1]) == choose_balance(named, [1, 99]) == named


def test_equal_classes_leave_keys_as_they_were(workspace):
    assert _keyed(workspace, 5) == [None, None, None]


def test_unequal_classes_are_sampled_where_all_real_images_are_trained_on(workspace):
    assert _keyed(workspace, 20) == ["sampling", "sampling", None]


def test_a_recipe_may_say_how(workspace):
    own = {"teacher": "{class_balance: weights}", "full_data": "{class_balance: none}"}
    assert _keyed(workspace, 20, **own) == ["weights", None, None]


def test_the_digits_are_nearly_equal(workspace):
    context = workspace.pipeline().open_context()
    assert not balance_inputs(context, "auto").settings
