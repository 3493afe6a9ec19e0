"""Names in other forms of Unicode are the same names; names that look the same are one warning."""

import logging

import pytest

from d4m.errors import RecipeError, SourceError
from d4m.settings import PromptSettings
from d4m.sources.class_rows import class_table
from d4m.sources.class_table import ClassRow, ClassTable
from tests.sources.folders import fill, ids, open_folder

COMPOSED = ("caf\u00e9", "\u00f1and\u00fa", "\uac00\ub098", "\u00c5ngstr\u00f6m")
DECOMPOSED = ("cafe\u0301", "n\u0303andu\u0301", "\u1100\u1161\u1102\u1161", "A\u030angstro\u0308m")


@pytest.mark.parametrize(("one", "other"), list(zip(COMPOSED, DECOMPOSED, strict=True)))
@pytest.mark.parametrize("on_disk", ["composed", "decomposed"])
def test_folders_match_the_recipe_in_any_form(tmp_path, one, other, on_disk):
    folder, wanted = (one, other) if on_disk == "composed" else (other, one)
    for name in (folder, "bar"):
        fill(tmp_path / "x" / name, 3)
    source = open_folder(tmp_path / "x", classes={wanted: "first", "bar": "second"})
    assert source.class_table.names == ("first", "second")
    assert ids(source, 0) == {f"{folder}/{number:03d}.png" for number in range(3)}


def test_training_and_test_folders_match_each_other_in_any_form(tmp_path):
    for split, name in (("train", DECOMPOSED[0]), ("test", COMPOSED[0])):
        for folder in (name, "bar"):
            fill(tmp_path / "x" / split / folder, 2)
    source = open_folder(tmp_path / "x")
    assert source.class_table.names == ("bar", DECOMPOSED[0])
    assert ids(source, 1, "test") == {f"{COMPOSED[0]}/000.png", f"{COMPOSED[0]}/001.png"}
    images = source.read_all("test", 1, source.index("test", 1))
    assert images[:, 0, 0, 0].tolist() == [0, 1]


def test_a_table_in_a_file_matches_in_any_form(tmp_path):
    for name in (DECOMPOSED[0], "bar"):
        fill(tmp_path / "x" / name, 2)
    (tmp_path / "x" / "mine.tsv").write_text(
        f"folder\tname\tgloss\nbar\tbar\t\n{COMPOSED[0]}\tcoffee\t\n", encoding="utf-8"
    )
    assert open_folder(tmp_path / "x", classes="mine.tsv").class_table.names == ("bar", "coffee")


def test_prompts_of_single_classes_match_in_any_form():
    for name, key in ((COMPOSED[0], DECOMPOSED[0]), (DECOMPOSED[0], COMPOSED[0])):
        table = ClassTable((name, "bar"))
        settings = PromptSettings(per_class={key: "a cup of coffee"})
        assert table.prompt(0, settings) == "a cup of coffee"
        with pytest.raises(RecipeError, match="does not have"):
            table.prompt(0, PromptSettings(per_class={"cafe": "x"}))


def test_names_stay_as_they_are_so_keys_stay(tmp_path):
    for name in (DECOMPOSED[0], "bar"):
        fill(tmp_path / "x" / name, 2)
    assert open_folder(tmp_path / "x").class_table.names == ("bar", DECOMPOSED[0])


def test_one_folder_for_two_rows_of_a_table_is_refused(tmp_path):
    for name in (DECOMPOSED[0], "bar"):
        fill(tmp_path / "x" / name, 2)
    with pytest.raises(SourceError, match="twice; remove one of the rows"):
        open_folder(tmp_path / "x", classes={COMPOSED[0]: "x", DECOMPOSED[0]: "y"})


@pytest.mark.parametrize(
    "pair",
    [
        ("cat", "Cat"),
        ("\ufb01sh", "fish"),
        ("\uff11", "1"),
        (COMPOSED[0], DECOMPOSED[0]),
        ("stra\u00dfe", "STRASSE"),
        ("hot dog", "hot  dog"),
    ],
)
def test_names_that_look_the_same_are_one_warning(caplog, pair):
    names = (*pair, "dog", "Dog")
    with caplog.at_level(logging.WARNING):
        class_table([ClassRow(str(number), name) for number, name in enumerate(names)])
    [record] = caplog.records
    assert f"{pair[0]!a} and {pair[1]!a}, 'dog' and 'Dog'" in record.getMessage()
    assert "rename one in `dataset.classes`" in record.getMessage()


def test_distinct_names_are_no_warning(caplog):
    with caplog.at_level(logging.WARNING):
        class_table([ClassRow(name, name) for name in ("cat", "cot", "cart", "c\u00e4t")])
    assert caplog.records == []
