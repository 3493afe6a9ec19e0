"""Show and compare: tables."""

import json

import numpy as np
import pytest
from PIL import Image

from d4m.page.write import render_report
from tests.cli.commands import call, refused
from tests.conftest import FOLDER_RECIPE, ONE_STUDENT, TINY_RECIPE


@pytest.fixture
def compared(finished):
    """The tiny recipe and another one with a single student and seed, both run."""
    finished.write("other", ONE_STUDENT)
    finished.run("other")
    return finished


def test_show_prints_the_score_table_and_where_the_data_set_is(finished):
    lines = call(finished, "show", "tiny")
    rows = [line.split() for line in lines[1:11]]
    assert [row[:4] for row in rows] == [
        ["synthetic", "3", "soft", "convnet3"],
        ["synthetic", "3", "soft", "test_vit"],
        ["synthetic", "3", "hard", "convnet3"],
        ["random_real", "3", "soft", "convnet3"],
        ["random_real", "3", "soft", "test_vit"],
        ["random_real", "3", "hard", "convnet3"],
        ["nearest_real", "3", "soft", "convnet3"],
        ["nearest_real", "3", "hard", "convnet3"],
        ["full_data", "all", "hard", "convnet3"],
        ["teacher", "all", "-", "convnet3"],
    ]
    context = finished.pipeline().open_context()
    scores = [
        100 * float(context.read("evaluation_scores", f"synthetic-soft-convnet3-0{n}")["top1"])
        for n in range(2)
    ]
    mean, deviation = np.mean(scores), np.std(scores, ddof=1)
    assert rows[0][4:7] == [f"{mean:.2f}", "±", f"{deviation:.2f}"]
    assert rows[0][7] == f"{deviation / 2**0.5:.2f}"  # error of the mean
    assert rows[0][10:] == ["120", "2"]  # 4 epochs of 30 images; seeds
    [sheet] = [line.split(": ")[1].strip() for line in lines if line.startswith("contact sheet")]
    with Image.open(sheet) as image:
        image.verify()


def test_show_says_where_each_row_stands_to_random_images(finished):
    lines = call(finished, "show", "tiny")
    [start] = [n for n, line in enumerate(lines) if line.startswith("Top-1 minus that of random")]
    rows = [line.split() for line in lines[start + 2 : start + 7]]
    assert [row[:3] for row in rows] == [
        ["synthetic", "soft", "convnet3"],
        ["synthetic", "soft", "test_vit"],
        ["synthetic", "hard", "convnet3"],
        ["nearest_real", "soft", "convnet3"],
        ["nearest_real", "hard", "convnet3"],
    ]
    context = finished.pipeline().open_context()
    difference = np.mean(
        [
            100 * float(context.read("evaluation_scores", f"synthetic-soft-test_vit-0{n}")["top1"])
            - 100
            * float(context.read("evaluation_scores", f"random_real-soft-test_vit-0{n}")["top1"])
            for n in range(2)
        ]
    )
    assert rows[1][3] == f"{difference:+.2f}"
    assert lines[start + 7].startswith("with one distillation, intervals are over students only")


def test_compare_prints_the_rows_of_every_recipe_in_one_table(compared):
    lines = call(compared, "compare", "tiny", "other")
    assert lines[0].split()[:3] == ["recipe", "training", "set"]
    assert "test top-1 %" in lines[0]
    for name, rows in (("tiny", lines[1:11]), ("other", lines[11:19])):
        alone = call(compared, "show", name)[1 : len(rows) + 1]
        assert [row.split() for row in rows] == [[name, *row.split()] for row in alone]
    assert [line.split()[1] for line in lines[11:19]] == [
        *("synthetic",) * 2,
        *("random_real",) * 2,
        *("nearest_real",) * 2,
        "full_data",
        "teacher",
    ]
    for name in ("tiny", "other"):
        [robust] = [line for line in call(compared, "show", name) if "label-robust" in line]
        assert f"{name}: {robust}" in lines[19:]


def test_compare_may_print_the_rows_of_one_training_set(compared):
    lines = call(compared, "compare", "tiny", "other", "--training-set", "synthetic")
    assert [line.split()[:5] for line in lines[1:6]] == [
        ["tiny", "synthetic", "3", "soft", "convnet3"],
        ["tiny", "synthetic", "3", "soft", "test_vit"],
        ["tiny", "synthetic", "3", "hard", "convnet3"],
        ["other", "synthetic", "3", "soft", "convnet3"],
        ["other", "synthetic", "3", "hard", "convnet3"],
    ]


def test_compare_names_the_training_sets_that_there_are(compared):
    error = refused(compared, "compare", "tiny", "other", "--training-set", "synthetik")
    assert error == (
        "wanted a training set in these recipes' score tables (synthetic, random_real, "
        "nearest_real, full_data, teacher), found 'synthetik'"
    )


def test_a_narrow_terminal_shows_every_figure_of_a_lead_on_one_line(finished):
    lines = call(finished, "show", "tiny", columns=80)
    [start] = [n for n, line in enumerate(lines) if line.startswith("Top-1 minus that of random")]
    wide = call(finished, "show", "tiny")
    [far] = [n for n, line in enumerate(wide) if line.startswith("Top-1 minus that of random")]
    for narrow, full in zip(lines[start + 1 : start + 7], wide[far + 1 : far + 7], strict=True):
        assert len(narrow) <= 80
        assert narrow.split() == full.split()[: len(narrow.split())]


def test_compare_of_one_recipe_needs_no_column_for_its_name(finished):
    lines = call(finished, "compare", "tiny")
    shown = call(finished, "show", "tiny")
    assert lines == shown[: len(lines)]
    # The table, the meaning of its columns, one DD-Ranking, the bytes and the device.
    assert len(lines) == 11 + 4


def test_compare_refuses_scores_on_different_images(finished):
    text = TINY_RECIPE.replace("digits}", "digits, validation_share: 0.1}")
    finished.write("validated", text.replace("seeds: 2", "seeds: 2, split: validation"))
    error = refused(finished, "compare", "tiny", "validated")
    assert error == ("some of these recipes are scored on test images, others on validation images")


def test_compare_says_where_recipes_are_scored_on_different_images(compared):
    said = "these recipes are scored on different images, so only rows of one recipe can be"
    assert not any(said in line for line in call(compared, "compare", "tiny", "other"))
    for number in range(8):
        compared.draw("left", str(number))
        compared.draw("right", str(number))
    compared.write("folder", FOLDER_RECIPE)
    compared.run("folder")
    assert any(said in line for line in call(compared, "compare", "tiny", "folder"))
    compared.write("folder", FOLDER_RECIPE.replace("ipc: 1", "ipc: 2"))  # its last version is shown
    assert any(said in line for line in call(compared, "compare", "tiny", "folder"))
    apart = {
        other: json.loads("".join(call(compared, "compare", "tiny", other, "--json")))
        for other in ("other", "folder")
    }
    assert not apart["other"]["scored_on_different_images"]
    assert apart["folder"]["scored_on_different_images"]
    page = compared.pipeline("folder"), compared.pipeline("tiny")
    assert said[1:] in render_report({each.recipe.name: each for each in page})


def test_compare_before_the_first_run_says_what_to_do(finished):
    finished.write("other", TINY_RECIPE.replace("seeds: 2", "seeds: 3"))
    error = refused(finished, "compare", "tiny", "other")
    assert error.startswith("recipe other has no distilled_dataset yet")
    assert "`d4m run other`" in error
