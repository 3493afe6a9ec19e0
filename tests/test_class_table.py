"""class_id <-> name <-> prompt cannot come apart (defects 5, 6 and 12 of the published code)."""

import pytest
from PIL import Image

from d4m.class_table import ClassTable
from d4m.errors import RecipeError, SourceError
from d4m.settings import ImageFolderSettings, PromptSettings
from d4m.sources.image_folder import ImageFolderSource


def test_names_and_prompts_are_looked_up_by_id_in_the_order_given():
    table = ClassTable(("zebra", "ant", "10", "9"))
    settings = PromptSettings(template="a photo of a {name}, {name}")
    assert len(table) == 4
    prompts = [table.prompt(class_id, settings) for class_id in range(4)]
    assert prompts == [f"a photo of a {name}, {name}" for name in ("zebra", "ant", "10", "9")]


def test_a_thousand_numbered_classes_keep_their_numbers():
    table = ClassTable(tuple(str(number) for number in range(1000)))
    prompts = [table.prompt(class_id, PromptSettings()) for class_id in range(len(table))]
    assert prompts == [str(class_id) for class_id in range(1000)]


def test_numbered_folders_keep_the_order_of_the_recipes_class_table(tmp_path):
    for number in range(12):
        (tmp_path / str(number)).mkdir()
        Image.new("L", (8, 8), number).save(tmp_path / str(number) / "image.png")
    classes = {str(number): f"class {number}" for number in range(12)}
    settings = ImageFolderSettings(
        source="image_folder", path=tmp_path, classes=classes, size_px=8, channels=1
    )
    source = ImageFolderSource(settings, tmp_path)
    assert source.class_table.names == tuple(classes.values())
    for class_id in range(12):
        levels = [
            int(image.max())
            for split in ("train", "test")
            for image in source.read_all(split, class_id, source.index(split, class_id))
        ]
        assert levels == [class_id]


def test_a_class_with_a_prompt_of_its_own_gets_it_and_no_other_class_does():
    table = ClassTable(("crane", "kite"))
    settings = PromptSettings(per_class={"crane": "a {name}, the bird"})
    assert table.prompt(0, settings) == "a {name}, the bird"
    assert table.prompt(1, settings) == "kite"


def test_braces_in_a_class_name_are_text():
    table = ClassTable(("{name}", "{0}"))
    settings = PromptSettings(template="a {name}")
    assert [table.prompt(i, settings) for i in range(2)] == ["a {name}", "a {0}"]


@pytest.mark.parametrize("names", [("a", "a"), ("a", "b", "a"), ("a", ""), ("", "")])
def test_repeated_or_empty_names_are_refused(names):
    with pytest.raises(SourceError, match="distinct and not empty"):
        ClassTable(names)


@pytest.mark.parametrize("names", [(), ("only",)])
def test_fewer_than_two_classes_are_refused_with_their_number(names):
    with pytest.raises(SourceError, match=f"at least 2 classes, found {len(names)}"):
        ClassTable(names)


def test_a_prompt_for_an_unknown_class_names_it_and_the_classes_there_are():
    settings = PromptSettings(per_class={"crain": "x", "kite": "y"})
    with pytest.raises(RecipeError, match=r"\['crain'\].*\['crane', 'kite'\]"):
        ClassTable(("crane", "kite")).prompt(1, settings)
