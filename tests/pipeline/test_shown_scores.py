"""The scores as people see them."""

from d4m.reports.checks import CHECKS
from d4m.training.label_formats import unpack_logits
from d4m_assets.tables import score_table
from tests.pipeline.laboratory import BLOCKS, rows_of


def examine(lab, recipe, name):
    """The outcome of a check of a recipe."""
    [check] = [check for check in CHECKS if check.name == name]
    return check.examine(lab.pipeline(recipe).open_context())


def test_the_check_of_the_class_order_reads_any_format_and_none(lab):
    context = lab.context("uint8")
    logits = unpack_logits(context.read("soft_labels", BLOCKS[0]), 10).mean(axis=0)
    predicted = logits.reshape(10, 3, 10).mean(axis=1).argmax(axis=1)
    wrong = {str(c): int(v) for c, v in enumerate(predicted) if c != v}
    outcome = examine(lab, "uint8", "class_order")
    assert outcome.figures["class_taken_for"] == wrong
    assert outcome.passed == (not wrong)

    lab.computed("online")
    outcome = examine(lab, "online", "class_order")
    assert outcome.passed
    assert outcome.summary == "the teacher labels online: no labels are stored"


def test_the_check_of_the_scores_takes_no_row_of_another_kind(lab):
    """Not those without augmentation; and those with class labels where there are no others."""
    rows = {(r.training_set, r.labels, r.augmented): r for r in rows_of(lab.context("plain"))}
    outcome = examine(lab, "plain", "beats_random_real")
    for name in ("synthetic", "random_real"):
        assert outcome.figures[f"{name}_top1"] == rows[name, "soft", True].top1
    lab.computed("hard")
    outcome = examine(lab, "hard", "beats_random_real")
    hard = {row.training_set: row.top1 for row in rows_of(lab.context("hard"))}
    assert outcome.figures["synthetic_top1"] == hard["synthetic"]
    assert outcome.figures["random_real_top1"] == hard["random_real"]
    assert outcome.summary.startswith("hard, convnet3: synthetic ")


def test_the_score_table_tells_rows_without_augmentation_apart(lab):
    records = [record.data for record in score_table(rows_of(lab.context("plain"))).records]
    found = [(each["training set"], each["labels"]) for each in records]
    assert len(set(found)) == len(found)
    plain = [name for name, _ in found if name.endswith(", as they are")]
    assert plain == ["synthetic, as they are", "random_real, as they are"]
