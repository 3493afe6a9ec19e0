"""Checks that fail are printed by every command that makes, shows or hands out."""

import pytest
from typer.testing import CliRunner

from d4m.cli import app
from tests.cli.commands import call, fail
from tests.conftest import FOLDER_RECIPE, Workspace


@pytest.fixture(scope="module")
def damaged(tmp_path_factory) -> Workspace:
    """A folder of 24 images, 5 of which cannot be read, run once."""
    made = Workspace(tmp_path_factory.mktemp("damaged") / "workspace")
    for name in ("cat", "dog"):
        for image in range(12):
            path = made.draw(name, f"{image:02d}")
            if image < (3 if name == "cat" else 2):
                path.write_bytes(b"no image")
    made.write("pets", FOLDER_RECIPE)
    made.run("pets")
    return made


LINE = "failed real_images, readable_files: 5 unreadable images, 20.83%; the limit is 1.00%"


@pytest.mark.parametrize(
    "command", [["run"], ["status"], ["show"], ["verify"], ["lineage", "real_images"]]
)
def test_unreadable_files_are_named_by_every_command(damaged, command):
    name, *rest = command
    assert LINE in call(damaged, name, "pets", *rest)


def test_a_run_whose_artifacts_fail_a_check_has_an_exit_code_of_its_own(damaged):
    result = CliRunner().invoke(app, ["run", "pets"], env=damaged.environment())
    assert result.exit_code == 3
    printed, _ = fail(damaged, "run", "pets", code=3)
    assert LINE.removeprefix("failed ") in " ".join(printed.split())


def test_each_unreadable_file_is_listed_with_its_reason(damaged):
    lines = call(damaged, "status", "pets")
    place = lines.index(LINE)
    assert len([line for line in lines[place + 1 :] if "not an image" in line]) == 5


def test_an_exported_card_says_which_checks_fail(damaged, tmp_path):
    call(damaged, "export", "pets", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "- error: real_images, readable_files: 5 unreadable images, 20.83%" in card
