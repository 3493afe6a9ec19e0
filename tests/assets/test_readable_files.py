"""Images that cannot be read, as the check and the UI show them."""

import pytest
from PIL import Image

from d4m.reports.checks import checks_of
from d4m_assets.assets.real_images import _describe
from d4m_assets.stage_asset import check_result
from tests.conftest import Workspace

RECIPE = """\
dataset: {{source: image_folder, path: ../images, size_px: 8{dataset}}}
prototypes: {{ipc: 1}}
"""


@pytest.fixture
def folder(workspace: Workspace):
    """198 good images in two classes, half of them for tests; two more that are broken."""
    for split in ("train", "test"):
        for name, count in (("ant", 50), ("bee", 49)):
            folder = workspace.folder / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    root = workspace.folder / "images"
    (root / "train" / "bee" / "empty.png").touch()
    (root / "test" / "ant" / "page.jpg").write_text("<html>")
    return root


def _pipeline(workspace: Workspace, dataset: str = ""):
    workspace.write("own", RECIPE.format(dataset=dataset))
    pipeline = workspace.pipeline("own")
    pipeline.run_stage("real_images")
    return pipeline.open_context()


def examine(context):
    """The outcome of the check, as Dagster shows it."""
    [check] = [check for check in checks_of("real_images") if check.name == "readable_files"]
    return check_result("own", check, check.examine(context))


@pytest.mark.usefixtures("folder")
def test_the_check_holds_at_the_limit_and_fails_above_it(workspace: Workspace):
    at_limit = examine(_pipeline(workspace))  # 2 of 200, and 1 % by default
    assert at_limit.passed
    assert at_limit.description == "own: 2 unreadable images, 1.00%; the limit is 1.00%"
    assert not examine(_pipeline(workspace, ", unreadable_share: 0.0099")).passed
    assert examine(_pipeline(workspace, ", unreadable_share: 1")).passed


@pytest.mark.usefixtures("folder")
def test_each_file_is_a_row_with_its_reason(workspace: Workspace):
    context = _pipeline(workspace)
    outcome = examine(context)
    assert outcome.metadata["unreadable"].value == 2
    assert outcome.metadata["share"].value == pytest.approx(0.01)
    expected = [
        {"split": "train", "file": "bee/empty.png", "reason": "the file is empty"},
        {
            "split": "test",
            "file": "ant/page.jpg",
            "reason": "not an image in JPEG, PNG, WEBP, BMP, TIFF or GIF format",
        },
    ]
    shown = _describe(context)
    for table in (outcome.metadata["rows"], shown["unreadable files"]):
        assert [dict(record.data) for record in table.records] == expected
    assert (shown["dagster/row_count"].value, shown["unreadable"].value) == (198, 2)
    assert [dict(record.data) for record in shown["classes"].records] == [
        {"class": 0, "name": "ant", "train": 50, "test": 50, "unreadable": 1},
        {"class": 1, "name": "bee", "train": 49, "test": 49, "unreadable": 1},
    ]


def test_of_many_files_the_first_hundred_are_rows(workspace: Workspace, folder):
    for number in range(150):
        (folder / "train" / "ant" / f"x{number:03d}.png").touch()
    context = _pipeline(workspace)
    outcome = examine(context)
    assert not outcome.passed
    assert outcome.metadata["unreadable"].value == 152
    assert len(outcome.metadata["the first 100 rows"].records) == 100
    assert outcome.metadata["the first 100 rows"].records[99].data["file"] == "ant/x099.png"
    shown = _describe(context)["unreadable files"].records
    assert shown[99].data["file"] == "ant/x099.png"
    assert shown[100].data["split"] == "... and 52 more rows"


def test_a_table_without_rows_can_be_shown(workspace: Workspace):
    workspace.pipeline().run_stage("real_images")
    context = workspace.pipeline().open_context()
    outcome = examine(context)
    assert outcome.passed
    assert "rows" not in outcome.metadata
    assert outcome.metadata["limit"].value == "0.0"
    assert _describe(context)["unreadable files"].records == []
