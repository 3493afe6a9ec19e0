"""Asset checks and what people see of the artifacts."""

import base64
from io import BytesIO

import dagster as dg
import numpy as np
import pytest
from PIL import Image

from d4m.reports.checks import CHECKS
from d4m.stages.synthetic_images import SyntheticImages
from tests.conftest import Workspace


@pytest.fixture
def result(
    materialized_once: tuple[Workspace, dg.ExecuteInProcessResult],
) -> dg.ExecuteInProcessResult:
    """Return the result of a run that found everything in the store."""
    return materialized_once[1]


def test_every_check_runs_also_when_everything_is_reused(result: dg.ExecuteInProcessResult):
    names = {evaluation.check_name for evaluation in result.get_asset_check_evaluations()}
    assert names == {
        "readable_files",
        "duplicates",
        "near_copies",
        "value_range",
        "no_blank_image",
        "ipc_images_per_class",
        "class_order",
        "beats_random_real",
        "same_conditions",
        "closer_than_prototypes",
    }


def test_the_score_check_states_both_figures(result: dg.ExecuteInProcessResult):
    found = next(
        evaluation
        for evaluation in result.get_asset_check_evaluations()
        if evaluation.check_name == "beats_random_real"
    )
    synthetic = found.metadata["synthetic_top1"].value
    random = found.metadata["random_real_top1"].value
    standings = [row.data["standing"] for row in found.metadata["rows"].value.records]
    assert len(standings) == 3  # two students with soft labels, the first one with hard ones too
    assert found.passed == ("behind" not in standings)
    assert found.severity == dg.AssetCheckSeverity.WARN
    standing = found.metadata["standing"].value
    difference = f"{standing}: {100 * (synthetic - random):+.2f} points (95 % interval "
    text = f"soft, convnet3: synthetic {synthetic:.2%}, random real {random:.2%}, {difference}"
    assert found.description.startswith(text)


def examine(workspace: Workspace, name: str):
    """The outcome of a check of the tiny recipe."""
    [check] = [check for check in CHECKS if check.name == name]
    return check.examine(workspace.pipeline().open_context())


def replace_images(workspace: Workspace, class_id: int, images: np.ndarray) -> None:
    """Publish other images of one class, as a generator gone wrong would have made them."""
    pipeline = workspace.pipeline()
    context = pipeline.open_context()
    unit = SyntheticImages().plan(context)[class_id]
    arrays = context.store.read_arrays(unit.stage, unit.key) | {"images": images}
    (workspace.store / "objects" / unit.stage / unit.key[:2] / f"{unit.key}.json").unlink()
    context.store.publish_arrays(unit, arrays, {})


def test_a_blank_image_fails_its_check_and_names_the_class(finished: Workspace):
    assert examine(finished, "no_blank_image").passed
    images = (
        finished.pipeline().open_context().read("synthetic_images", "class-00004")["images"].copy()
    )
    images[1] = 7
    replace_images(finished, 4, images)
    outcome = examine(finished, "no_blank_image")
    assert not outcome.passed
    assert outcome.figures["blank_images"] == 1
    assert outcome.figures["images"] == 30
    assert outcome.figures["blank_images_per_class"] == {"4": 1}


def test_a_class_that_lost_an_image_fails_its_check(finished: Workspace):
    assert examine(finished, "ipc_images_per_class").passed
    images = finished.pipeline().open_context().read("synthetic_images", "class-00007")["images"]
    replace_images(finished, 7, images[:2])
    outcome = examine(finished, "ipc_images_per_class")
    assert not outcome.passed
    assert outcome.figures["classes_with_other_counts"] == {"7": 2}


def test_the_class_order_check_follows_the_teacher(finished: Workspace):
    context = finished.pipeline().open_context()
    logits = context.read("soft_labels", "epochs-000000")["logits"].astype(np.float64).mean(axis=0)
    predicted = [int(logits[3 * c : 3 * c + 3].mean(axis=0).argmax()) for c in range(10)]
    outcome = examine(finished, "class_order")
    assert outcome.passed == (predicted == list(range(10)))
    wrong = {str(c): v for c, v in enumerate(predicted) if c != v}
    assert outcome.figures["class_taken_for"] == wrong


def test_contact_sheets_are_pictures_with_a_row_per_class(result: dg.ExecuteInProcessResult):
    event = result.asset_materializations_for_node("synthetic_images")[0]
    for name in ("synthetic images", "their prototypes, decoded"):
        markdown = event.metadata[name].value
        encoded = markdown.removeprefix("![picture](data:image/png;base64,").removesuffix(")")
        with Image.open(BytesIO(base64.b64decode(encoded))) as sheet:
            assert sheet.size == (110 + 3 * 68 + 4, 10 * 68 + 4)


def test_the_scores_have_their_errors_and_their_differences_to_random_images(
    result: dg.ExecuteInProcessResult, finished_once: Workspace
):
    event = result.asset_materializations_for_node("evaluation_scores")[0]
    context = finished_once.pipeline().open_context()
    top1 = {
        name: np.array(
            [
                100 * float(context.read("evaluation_scores", f"{name}-soft-convnet3-0{n}")["top1"])
                for n in range(2)
            ]
        )
        for name in ("synthetic", "random_real")
    }
    first = event.metadata["scores"].records[0].data
    assert first["± over students"] == round(top1["synthetic"].std(ddof=1), 2)
    assert first["error"] == round(top1["synthetic"].std(ddof=1) / 2**0.5, 2)
    assert "distillations" not in first
    lead = event.metadata["minus random real"].records[0].data
    difference = top1["synthetic"] - top1["random_real"]
    reach = 12.706204736 * difference.std(ddof=1) / 2**0.5  # t of 1 degree of freedom, at 97.5 %
    mean = difference.mean()
    assert lead["difference"] == f"{mean:+.2f}"
    assert lead["95 % interval"] == f"{mean - reach:+.2f} to {mean + reach:+.2f}"


def test_the_score_table_has_a_row_per_training_set_labels_and_student(
    result: dg.ExecuteInProcessResult,
):
    event = result.asset_materializations_for_node("evaluation_scores")[0]
    rows = [record.data for record in event.metadata["scores"].records]
    assert [(row["training set"], row["labels"], row["student"]) for row in rows] == [
        ("synthetic", "soft", "convnet3"),
        ("synthetic", "soft", "test_vit"),
        ("synthetic", "hard", "convnet3"),
        ("random_real", "soft", "convnet3"),
        ("random_real", "soft", "test_vit"),
        ("random_real", "hard", "convnet3"),
        ("nearest_real", "soft", "convnet3"),
        ("nearest_real", "hard", "convnet3"),
        ("full_data", "hard", "convnet3"),
        ("teacher", "hard", "convnet3"),
    ]
