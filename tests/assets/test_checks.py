"""Asset checks and what people see of the artifacts."""

import base64
from io import BytesIO
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from PIL import Image

from d4m.reports.checks import CHECKS
from d4m.stages.synthetic_images import SyntheticImages
from d4m_assets.partitions import recipe_partitions
from d4m_assets.tables import described_table
from tests.assets.conftest import GRAPH, Instance
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
    synthetic = found.metadata["synthetic top1"].value
    random = found.metadata["random real top1"].value
    standings = [row.data["standing"] for row in found.metadata["rows"].value.records]
    assert len(standings) == 3  # two students with soft labels, the first one with hard ones too
    assert found.passed == ("behind" not in standings)
    assert found.severity == dg.AssetCheckSeverity.WARN
    standing = found.metadata["standing"].value
    difference = f"{standing}: {100 * (synthetic - random):+.2f} points (95 % interval "
    text = (
        f"tiny: soft, convnet3: synthetic {synthetic:.2%}, random real {random:.2%}, {difference}"
    )
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


def test_the_data_set_names_the_file_of_its_report(
    result: dg.ExecuteInProcessResult, finished_once: Workspace
):
    event = result.asset_materializations_for_node("distilled_dataset")[0]
    assert isinstance(event.metadata["report"], dg.PathMetadataValue)
    page = Path(event.metadata["report"].path).read_text(encoding="utf-8")
    assert "<h1>tiny</h1>" in page
    context = finished_once.pipeline().open_context()
    top1 = [
        100 * float(context.read("evaluation_scores", f"synthetic-soft-convnet3-0{n}")["top1"])
        for n in range(2)
    ]
    assert f"{np.mean(top1):.2f}<small>%</small>" in page


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
    mean, deviation = top1["synthetic"].mean(), top1["synthetic"].std(ddof=1)
    assert first["top-1 %"] == f"{mean:.2f} ± {deviation:.2f}"
    assert first["error"] == f"{deviation / 2**0.5:.2f}"
    columns = event.metadata["scores"].schema.columns
    assert [column.name for column in columns] == list(first)
    assert all(column.description for column in columns)
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
        ("teacher", "-", "convnet3"),
    ]


def test_numbers_worth_a_history_come_first_and_none_is_a_setting(
    result: dg.ExecuteInProcessResult, finished_once: Workspace
):
    """Their values are those of the units; every number of the metadata is plotted."""
    context = finished_once.pipeline().open_context()

    def top1(row: str) -> np.ndarray:
        names = [f"{row}-convnet3-0{seed}" for seed in range(2)]
        return np.array([float(context.read("evaluation_scores", n)["top1"]) for n in names])

    soft, random = top1("synthetic-soft"), top1("random_real-soft")
    full = top1("full_data-hard").mean()
    teacher = float(context.read("evaluation_scores", "teacher")["top1"])
    expected = {
        "top-1 %, soft labels": 100 * soft.mean(),
        "top-1 %, class labels": 100 * top1("synthetic-hard").mean(),
        "lead over random real, points": 100 * (soft - random).mean(),
        "share of full data %": 100 * soft.mean() / full,
        "teacher's top-1 %": 100 * teacher,
    }
    shown = result.asset_materializations_for_node("evaluation_scores")[0].metadata
    assert list(shown)[:5] == list(expected)
    for name, value in expected.items():
        assert shown[name].value == pytest.approx(value, abs=0.006)
    assert numbers(shown) == {*expected, "computed", "reused", "seconds of work"}
    plotted = {
        "real_images": {"train images", "test images", "dagster/row_count"},
        "soft_labels": {"bytes of labels", "recognised by the teacher %"},
        "image_fidelity": {"Frechet distance", "coverage %"},
        "distilled_dataset": {"bytes", "dagster/row_count"},
        "teacher": set(),
    }
    for name, wanted in plotted.items():
        shown = result.asset_materializations_for_node(name)[0].metadata
        found = {key for key in numbers(shown) if not key.startswith(("copies", "unreadable"))}
        assert found == wanted | {"computed", "reused", "seconds of work"}, name


def numbers(metadata) -> set[str]:
    """The entries that Dagster plots."""
    plotted = (dg.IntMetadataValue, dg.FloatMetadataValue)
    return {name for name, value in metadata.items() if isinstance(value, plotted)}


def test_checks_belong_to_a_recipe_and_those_of_useless_artifacts_block(
    result: dg.ExecuteInProcessResult,
):
    specs = {key.name: GRAPH.get_check_spec(key) for key in GRAPH.asset_check_keys}
    assert specs.keys() == {check.name for check in CHECKS}
    assert {spec.partitions_def for spec in specs.values()} == {recipe_partitions}
    assert {name for name, spec in specs.items() if spec.blocking} == {
        "no_blank_image",
        "ipc_images_per_class",
        "readable_files",
    }
    for evaluation in result.get_asset_check_evaluations():
        assert evaluation.partition == "tiny"
        assert evaluation.description.startswith("tiny: ")
        assert not {"wanted", "limit"} & numbers(evaluation.metadata)  # settings, in a plot


def test_a_table_says_how_many_rows_it_leaves_out():
    columns = {"class": "its number", "name": "what it is called"}
    rows = [{"class": number, "name": f"c{number}"} for number in range(100)]
    whole = described_table(columns, rows, total=100)
    assert len(whole.records) == 100
    assert [column.type for column in whole.schema.columns] == ["int", "string"]
    cut = described_table(columns, rows, total=1000)
    assert len(cut.records) == 101
    assert cut.records[99].data == {"class": "99", "name": "c99"}
    assert cut.records[100].data == {"class": "... and 900 more rows", "name": None}


def test_numbers_of_a_column_have_as_many_digits():
    columns = {"share": "of something", "count": "of something", "name": "a text"}
    rows = [
        {"share": 1308.93, "count": 1, "name": "a"},
        {"share": 0.048, "count": 20, "name": "b"},
        {"share": None, "count": 3, "name": "c"},
        {"share": 1, "count": 3, "name": "d"},
    ]
    table = described_table(columns, rows)
    shown = [record.data["share"] for record in table.records]
    assert shown == ["1308.930", "0.048", None, "1.000"]
    assert [record.data["count"] for record in table.records] == [1, 20, 3, 3]


def test_a_blank_image_stops_what_is_made_of_the_images(materialized: Instance):
    """The check fails on a hit too, and the labels of such images are not made."""
    workspace = materialized.workspace
    replace_images(workspace, 4, np.full((3, 8, 8, 1), 7, np.uint8))
    result = materialized.materialize(selection="key:synthetic_images+")
    assert not result.success
    checked = {each.check_name: each for each in result.get_asset_check_evaluations()}
    assert not checked["no_blank_image"].passed
    assert checked["no_blank_image"].description == "tiny: 3 of 30 images are of a single colour"
    started = {event.step_key for event in result.all_events if event.is_step_start}
    assert started == {"synthetic_images"}
