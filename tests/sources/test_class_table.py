"""A class's id, name and prompt always agree (defects 5, 6 and 12 of the published code)."""

import pytest
from PIL import Image

from d4m.errors import RecipeError, SourceError
from d4m.settings import ImageFolderSettings, PromptSettings
from d4m.sources.class_table import ClassRow, ClassTable, read_class_table, shipped_class_table
from d4m.sources.file_digests import FileDigests
from d4m.sources.image_folder import ImageFolderSource


def test_names_and_prompts_are_looked_up_by_id_in_the_order_given():
    table = ClassTable(("zebra", "ant", "10", "9"))
    settings = PromptSettings(template="a photo of a {name}, {name}")
    assert len(table) == 4
    prompts = [table.prompt(class_id, settings) for class_id in range(4)]
    assert prompts == [f"a photo of a {name}, {name}" for name in ("zebra", "ant", "10", "9")]


def test_a_template_may_contain_the_class_id():
    table = ClassTable(("{name}", "dog"))
    settings = PromptSettings(template="{class_id}: {name}")
    assert [table.prompt(class_id, settings) for class_id in range(2)] == ["0: {name}", "1: dog"]


def test_a_thousand_numbered_classes_keep_their_numbers():
    table = ClassTable(tuple(str(number) for number in range(1000)))
    prompts = [table.prompt(class_id, PromptSettings()) for class_id in range(len(table))]
    assert prompts == [str(class_id) for class_id in range(1000)]


def test_numbered_folders_keep_the_order_of_their_class_table(tmp_path):
    images = tmp_path / "images"
    for number in range(12):
        (images / str(number)).mkdir(parents=True)
        Image.new("L", (8, 8), number).save(images / str(number) / "image.png")
    settings = ImageFolderSettings(source="image_folder", path=images, size_px=8, channels=1)
    rows = [ClassRow(str(number), f"class {number}") for number in range(12)]
    digests = FileDigests(tmp_path / "cache")
    source = ImageFolderSource(settings, images, digests=digests, rows=rows)
    assert source.class_table.names == tuple(row.name for row in rows)
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


def test_a_description_is_the_name_and_its_gloss_where_there_is_one():
    table = ClassTable(("crane", "dog"), ("wading bird", ""))
    settings = PromptSettings(template="a {name}: a photo of a {described}")
    assert table.prompt(0, settings) == "a crane: a photo of a crane, wading bird"
    assert table.prompt(1, settings) == "a dog: a photo of a dog"


def test_without_glosses_a_description_is_the_name():
    settings = PromptSettings(template="{described}")
    assert ClassTable(("crane", "dog")).prompt(0, settings) == "crane"


def test_a_gloss_changes_neither_a_prompt_of_its_own_nor_a_template_of_names():
    table = ClassTable(("crane", "dog"), ("wading bird", ""))
    own = PromptSettings(template="{described}", per_class={"crane": "a {described}"})
    assert table.prompt(0, own) == "a {described}"
    assert table.prompt(0, PromptSettings(template="a {name}")) == "a crane"


@pytest.mark.parametrize("texts", [("bird",), ("bird", "", "")])
def test_another_number_of_glosses_or_synonyms_than_of_classes_is_refused(texts):
    message = f"wanted %s for each of 2 classes, found {len(texts)}"
    with pytest.raises(SourceError, match=message % "a gloss"):
        ClassTable(("crane", "dog"), texts)
    with pytest.raises(SourceError, match=message % "synonyms"):
        ClassTable(("crane", "dog"), synonyms=texts)


def test_synonyms_may_be_shared_and_a_class_without_has_its_name():
    table = ClassTable(("crane", "construction crane", "dog"), (), ("crane", "crane, derrick", ""))
    settings = PromptSettings(template="a {synonyms}!", per_class={"crane": "a bird"})
    prompts = [table.prompt(class_id, settings) for class_id in range(3)]
    assert prompts == ["a bird", "a crane, derrick!", "a dog!"]
    assert [table.name_end(class_id, settings) for class_id in range(3)] == [0, 7, 5]
    assert table.find_name(1, "A Crane, derrick!") == 7
    assert table.find_name(1, "a construction crane") == 20
    assert table.find_name(2, "a cat") == 0


def test_braces_in_a_class_name_are_text():
    table = ClassTable(("{name}", "{0}", "{described}"))
    settings = PromptSettings(template="a {name}")
    prompts = [table.prompt(class_id, settings) for class_id in range(3)]
    assert prompts == ["a {name}", "a {0}", "a {described}"]


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


def _write(folder, text):
    path = folder / "classes.tsv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_file_gives_its_classes_in_its_own_order_with_glosses_where_it_has_them(tmp_path):
    text = "# from my field book\n#\nfolder\tname\tgloss\n10\tcrane\tbird\n9\tżółw\n#1\tdog\t\n"
    assert read_class_table(_write(tmp_path, text)) == (
        ClassRow("10", "crane", "bird"),
        ClassRow("9", "żółw", ""),
        ClassRow("#1", "dog", ""),
    )


def test_a_file_gives_synonyms_where_it_has_them(tmp_path):
    text = "folder\tname\tgloss\tsynonyms\n1\tcrane\tbird\tcrane, grus\n0\tdog\t\thound\n2\tcat\n"
    assert read_class_table(_write(tmp_path, text)) == (
        ClassRow("1", "crane", "bird", "crane, grus"),
        ClassRow("0", "dog", "", "hound"),
        ClassRow("2", "cat", "", ""),
    )


def test_the_gloss_column_may_be_left_off(tmp_path):
    path = _write(tmp_path, "folder\tname\n1\tcrane\n0\tdog\n")
    assert read_class_table(path) == (ClassRow("1", "crane"), ClassRow("0", "dog"))


def test_a_spreadsheets_byte_order_mark_line_ends_and_padding_do_not_count(tmp_path):
    path = _write(tmp_path, b"\xef\xbb\xbffolder\tname\r\n1\t crane \r\n0\tdog\r\n\r\n")
    assert read_class_table(path) == (ClassRow("1", "crane"), ClassRow("0", "dog"))


HEADER = "folder\tname\tgloss\n"
NO_HEADER = (
    "wanted the header 'folder<TAB>name<TAB>gloss<TAB>synonyms', 'folder<TAB>name<TAB>gloss' or "
    "'folder<TAB>name' after the comments, found"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f":1: {NO_HEADER} ''"),
        ("# only this\n", f":2: {NO_HEADER} ''"),
        ("#\nfolder name\n0\tdog\n", f":2: {NO_HEADER} 'folder name'"),
        ("0\tdog\n1\tcat\n", f":1: {NO_HEADER} '0\\tdog'"),
        ("folder\n0\n1\n", f":1: {NO_HEADER} 'folder'"),
        (
            HEADER[:-1] + "\tsynonyms\n0\tdog\t\t\thound\n1\tcat\n",
            ":2: wanted 2 or 3 or 4 columns separated by tabs, found 5: '0\\tdog\\t\\t\\thound'",
        ),
        (
            HEADER + "0\tdog\n1 cat\n",
            ":3: wanted 2 or 3 columns separated by tabs, found 1: '1 cat'",
        ),
        (
            "#\n" + HEADER + "0\tdog\ta\tb\n1\tcat\n",
            ":3: wanted 2 or 3 columns separated by tabs, found 4: '0\\tdog\\ta\\tb'",
        ),
        (
            "folder\tname\n0\tdog\tpet\n1\tcat\n",
            ":2: wanted 2 columns separated by tabs, found 3: '0\\tdog\\tpet'",
        ),
        (HEADER + "0\tdog\n\tcat\n", ":3: wanted a folder and a name, found '' and 'cat'"),
        (HEADER + "0\t \tpet\n1\tcat\n", ":2: wanted a folder and a name, found '0' and ''"),
        (
            HEADER + "0\tdog\n1\tcat\n0\tfox\n",
            ":4: wanted distinct folders, found '0' again after line 2",
        ),
        (
            HEADER + "0\tdog\n1\tcat\n2\tcat\n",
            ":4: wanted distinct names, found 'cat' again after line 3",
        ),
        (HEADER, ": wanted at least 2 classes, found 0"),
        (HEADER + "0\tdog\n", ": wanted at least 2 classes, found 1"),
        (
            HEADER.encode() + b"0\tdog\n1\t\xbf\xf3\xb3w\n",
            ":3: wanted UTF-8, found the byte 0xbf; save the file as UTF-8",
        ),
    ],
)
def test_a_file_that_is_no_class_table_is_refused_with_the_line_at_fault(tmp_path, text, message):
    path = _write(tmp_path, text)
    with pytest.raises(SourceError) as refusal:
        read_class_table(path)
    assert str(refusal.value) == f"{path}{message}"


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path):
    missing = tmp_path / "none.tsv"
    with pytest.raises(SourceError) as refusal:
        read_class_table(missing)
    reason = "No such file or directory"
    assert str(refusal.value) == f"wanted a class table, cannot read {missing}: {reason}"
    with pytest.raises(SourceError, match="Is a directory"):
        read_class_table(tmp_path)


def test_an_unknown_shipped_table_is_refused_with_those_there_are():
    with pytest.raises(SourceError) as refusal:
        shipped_class_table("imagenet")
    assert str(refusal.value) == (
        "wanted one of the class tables ['imagenet1k', 'tiny_imagenet', 'imagenette', "
        "'imagewoof', 'cifar10', 'cifar100'], or a file with columns separated by tabs, whose name "
        "ends in .tsv; found 'imagenet'"
    )
