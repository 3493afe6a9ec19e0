"""The shipped class tables: order, names and glosses, checked against facts and public code."""

import re
from collections import Counter

import pytest
import timm.data
from torchvision.datasets import Imagenette

from d4m.settings import PromptSettings
from d4m.sources.class_rows import class_table
from d4m.sources.class_table import SHIPPED_TABLES, ClassTable, shipped_class_table

IMAGENET_FAMILY = ("imagenet1k", "tiny_imagenet", "imagenette", "imagewoof")


@pytest.mark.parametrize(
    ("table", "classes"),
    [
        ("imagenet1k", 1000),
        ("tiny_imagenet", 200),
        ("imagenette", 10),
        ("imagewoof", 10),
        ("cifar10", 10),
        ("cifar100", 100),
    ],
)
def test_a_shipped_table_has_every_class_of_its_data_set(table, classes):
    assert table in SHIPPED_TABLES
    rows = shipped_class_table(table)
    assert len(rows) == classes
    names = tuple(row.name for row in rows)
    assert len(ClassTable(names, tuple(row.gloss for row in rows))) == classes


@pytest.mark.parametrize("table", SHIPPED_TABLES)
def test_names_are_words_and_differ_in_more_than_capitals(table):
    names = [row.name for row in shipped_class_table(table)]
    assert [name for name, times in Counter(map(str.lower, names)).items() if times > 1] == []
    assert [name for name in names if "_" in name or "," in name or name != name.strip()] == []


@pytest.mark.parametrize("table", SHIPPED_TABLES)
def test_a_gloss_is_a_short_phrase_that_says_more_than_the_name(table):
    rows = [row for row in shipped_class_table(table) if row.gloss]
    assert [row for row in rows if row.gloss.lower() == row.name.lower()] == []
    assert [row for row in rows if not 2 <= len(row.gloss.split()) <= 12] == []
    assert [row for row in rows if row.gloss.endswith(".") or ";" in row.gloss] == []


@pytest.mark.parametrize("table", IMAGENET_FAMILY)
def test_the_imagenet_family_stands_in_the_order_of_its_sorted_folders(table):
    folders = [row.folder for row in shipped_class_table(table)]
    assert folders == sorted(folders)
    assert {folder[0] + str(len(folder)) for folder in folders} == {"n9"}


@pytest.mark.parity
def test_imagenet1k_has_the_order_of_timms_classes():
    info = timm.data.ImageNetInfo("imagenet1k")
    assert [row.folder for row in shipped_class_table("imagenet1k")] == info.label_names()


@pytest.mark.parity
def test_imagenet1k_names_share_a_word_with_timms_description_of_the_same_folder():
    info = timm.data.ImageNetInfo("imagenet1k")
    strange = {
        row.name
        for row in shipped_class_table("imagenet1k")
        if not _words(row.name) & _words(info.label_name_to_description(row.folder, detailed=True))
    }
    # WordNet calls these cock, bull mastiff, Leonberg, anemone fish, jean, pajama, panpipe,
    # pay-phone and wreck.
    assert strange == {
        "rooster",
        "bullmastiff",
        "Leonberger",
        "clownfish",
        "jeans",
        "pajamas",
        "pan flute",
        "payphone",
        "shipwreck",
    }


def _words(text):
    return set(re.findall("[a-z]+", text.lower()))


@pytest.mark.parity
@pytest.mark.parametrize("table", IMAGENET_FAMILY)
def test_synonyms_of_the_imagenet_family_are_wordnets_as_timm_has_them(table):
    """They are the lists of `LOC_synset_mapping.txt`, which D4M publishes as its prompts."""
    info = timm.data.ImageNetInfo("imagenet1k")
    rows = shipped_class_table(table)
    assert [row.synonyms for row in rows] == [
        info.label_name_to_description(row.folder, detailed=False) for row in rows
    ]


def test_a_template_of_synonyms_gives_the_published_prompts():
    table = class_table(shipped_class_table("imagenet1k"))
    synonyms, names = PromptSettings(template="{synonyms}"), PromptSettings()
    prompts = [table.prompt(class_id, synonyms) for class_id in range(1000)]
    assert prompts[:5] == [
        "tench, Tinca tinca",
        "goldfish, Carassius auratus",
        "great white shark, white shark, man-eater, man-eating shark, Carcharodon carcharias",
        "tiger shark, Galeocerdo cuvieri",
        "hammerhead, hammerhead shark",
    ]
    # WordNet calls both cranes so.
    assert [prompts[class_id] for class_id in (134, 517, 7, 999)] == [
        "crane",
        "crane",
        "cock",
        "toilet tissue, toilet paper, bathroom tissue",
    ]
    assert sum(prompts[c] != table.prompt(c, names) for c in range(1000)) == 520
    assert [table.name_end(class_id, synonyms) for class_id in (0, 2, 999)] == [5, 17, 13]
    assert table.find_name(7, "a cock, crowing") == 6


@pytest.mark.parametrize("table", ["cifar10", "cifar100"])
def test_without_synonyms_they_are_the_name(table):
    rows = shipped_class_table(table)
    assert {row.synonyms for row in rows} == {""}
    made = class_table(rows)
    prompts = [made.prompt(c, PromptSettings(template="a {synonyms}")) for c in range(len(rows))]
    assert prompts == [f"a {row.name}" for row in rows]


@pytest.mark.parity
def test_imagenette_has_torchvisions_folders():
    folders = [row.folder for row in shipped_class_table("imagenette")]
    assert folders == sorted(Imagenette._WNID_TO_CLASS)


@pytest.mark.parametrize(
    ("class_id", "folder", "name"),
    [
        (0, "n01440764", "tench"),
        (1, "n01443537", "goldfish"),
        (134, "n02012849", "crane"),
        (207, "n02099601", "golden retriever"),
        (264, "n02113186", "Cardigan Welsh corgi"),
        (474, "n02963159", "cardigan"),
        (517, "n03126707", "construction crane"),
        (638, "n03710637", "maillot"),
        (639, "n03710721", "one-piece swimsuit"),
        (999, "n15075141", "toilet paper"),
    ],
)
def test_imagenet1k_has_the_class_ids_of_ilsvrc_2012(class_id, folder, name):
    row = shipped_class_table("imagenet1k")[class_id]
    assert (row.folder, row.name) == (folder, name)


@pytest.mark.parametrize(
    ("class_id", "word"),
    [(134, "bird"), (517, "machine"), (97, "duck"), (21, "hawk"), (242, "dog")],
)
def test_homonyms_are_distinguished_by_their_gloss(class_id, word):
    row = shipped_class_table("imagenet1k")[class_id]
    assert word in row.gloss
    assert word not in row.name


def test_the_crane_of_imagenet1k_is_described_as_a_bird():
    rows = shipped_class_table("imagenet1k")
    table = ClassTable(tuple(row.name for row in rows), tuple(row.gloss for row in rows))
    described = PromptSettings(template="a photo of a {described}")
    assert table.prompt(134, described) == (
        "a photo of a crane, large long-necked wading bird of marshes and plains"
    )
    assert table.prompt(1, described) == "a photo of a goldfish"


@pytest.mark.parametrize("table", ["tiny_imagenet", "imagenette", "imagewoof"])
def test_a_subset_of_imagenet1k_has_its_names_and_glosses(table):
    assert set(shipped_class_table(table)) <= set(shipped_class_table("imagenet1k"))


def test_imagenette_and_imagewoof_have_their_ten_classes():
    assert [row.name for row in shipped_class_table("imagenette")] == [
        "tench",
        "English springer spaniel",
        "cassette player",
        "chain saw",
        "church",
        "French horn",
        "garbage truck",
        "gas pump",
        "golf ball",
        "parachute",
    ]
    assert [row.name for row in shipped_class_table("imagewoof")] == [
        "Shih-Tzu",
        "Rhodesian ridgeback",
        "beagle",
        "English foxhound",
        "Border terrier",
        "Australian terrier",
        "golden retriever",
        "Old English sheepdog",
        "Samoyed",
        "dingo",
    ]


@pytest.mark.parametrize(
    ("class_id", "name"),
    [
        (0, "goldfish"),
        (1, "fire salamander"),
        (26, "golden retriever"),
        (95, "construction crane"),
        (199, "acorn"),
    ],
)
def test_tiny_imagenet_has_names_with_spaces_in_the_order_of_its_folders(class_id, name):
    assert shipped_class_table("tiny_imagenet")[class_id].name == name


def test_cifar10_has_its_label_names():
    rows = shipped_class_table("cifar10")
    names = ["airplane", "automobile", "bird", "cat", "deer"]
    names += ["dog", "frog", "horse", "ship", "truck"]
    assert [row.name for row in rows] == names
    assert [row.folder for row in rows] == names


def test_cifar100_has_its_fine_labels_in_alphabetical_order():
    rows = shipped_class_table("cifar100")
    folders = [row.folder for row in rows]
    assert folders == sorted(folders)
    assert [folders[class_id] for class_id in (0, 1, 39, 47, 99)] == [
        "apple",
        "aquarium_fish",
        "keyboard",
        "maple_tree",
        "worm",
    ]
    assert (rows[1].name, rows[39].name, rows[47].name) == (
        "aquarium fish",
        "computer keyboard",
        "maple tree",
    )
    renamed = [row for row in rows if row.name != row.folder.replace("_", " ")]
    assert renamed == [rows[39]]
