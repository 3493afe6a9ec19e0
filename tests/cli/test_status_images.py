"""The line of `d4m status` about a folder of images."""

from tests.cli.commands import call
from tests.conftest import FOLDER_RECIPE, Workspace


def test_status_says_what_was_taken_for_what(workspace: Workspace):
    for split in ("Training", "Testing"):
        for name in ("ant", "bee"):
            for number in range(2):
                workspace.draw(f"{split}/{name}", f"{split}{number}")
    (workspace.folder / "images" / "__MACOSX").mkdir()
    (workspace.folder / "images" / "Training" / "unlabeled").mkdir()
    (workspace.folder / "images" / "Training" / "ant" / "notes.txt").write_text("x")
    workspace.write("own", FOLDER_RECIPE)
    shown = call(workspace, "status", "own")
    assert (
        "images: train: Training/; test: Testing/; no classes, as they have no images: "
        "'unlabeled'; no classes, as they are known as junk: '__MACOSX'; "
        "not images by their names: .txt 1"
    ) in shown


def test_status_of_a_published_data_set_has_no_such_line(workspace: Workspace):
    assert "images:" not in call(workspace, "status", "tiny")
