"""The hub's tools read an exported folder as it is."""

import json
import subprocess

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from ruamel.yaml import YAML

from d4m.recipe.recipe import load_recipe
from tests.conftest import Workspace

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture
def load(tmp_path):
    """Return a call of the `datasets` library with a cache of its own."""

    def load(folder, *configuration):
        return datasets.load_dataset(str(folder), *configuration, cache_dir=str(tmp_path))

    return load


@pytest.fixture(scope="module")
def context(finished_once: Workspace):
    return finished_once.pipeline().open_context()


def _images(context):
    return [context.read("synthetic_images", f"class-{c:05d}")["images"] for c in range(10)]


def test_the_images_are_rows_with_class_names_and_origins(exports, load, context):
    found = load(exports / "parquet")
    assert list(found) == ["train"]
    rows = found["train"]
    assert rows.features["label"].names == NAMES
    assert isinstance(rows.features["image"], datasets.Image)
    assert rows["label"] == [class_id for class_id in range(10) for _ in range(3)]
    wanted = np.concatenate(_images(context))[..., 0]
    assert np.array_equal(np.stack([np.asarray(image) for image in rows["image"]]), wanted)
    prototypes = context.read("prototypes", "class-00006")
    real = context.read("real_images", "train-00006")["image_ids"]
    seeds = context.read("synthetic_images", "class-00006")["seeds"]
    for number, row in enumerate(rows.select(range(18, 21))):
        assert (row["prompt"], row["prototype"]) == ("six", number)
        assert row["weight"] == pytest.approx(3 * prototypes["cluster_shares"][number])
        assert row["real_image"] == real[prototypes["nearest_images"][number]]
        assert row["seed"] == seeds[number]
    assert np.mean(rows["weight"]) == pytest.approx(1)


def test_the_soft_labels_are_rows_of_views_and_logits(exports, load, context):
    rows = load(exports / "parquet", "soft_labels")["train"]
    stored = np.concatenate(
        [context.read("soft_labels", f"epochs-{e:06d}")["logits"] for e in (0, 2)]
    )
    logits = rows.with_format("numpy")["logits"][:]
    assert np.array_equal(logits.reshape(4, 30, 10), stored.astype(logits.dtype))
    assert rows["epoch"] == [epoch for epoch in range(4) for _ in range(30)]
    assert rows["image"] == [*range(30)] * 4
    assert rows.features["crop"] == datasets.List(datasets.Value("float32"), length=4)


def test_the_scores_are_rows_of_shares(exports, load):
    rows = load(exports / "parquet", "scores")["train"]
    stored = json.loads((exports / "parquet" / "scores.json").read_text())
    assert len(rows) == len(stored) == 10
    for row, wanted in zip(rows, stored, strict=True):
        assert {name: row[name] for name in ("training_set", "top1", "views")} == {
            name: wanted[name] for name in ("training_set", "top1", "views")
        }
        assert row["images_per_class"] == wanted["ipc"]
        assert row["top1_error"] == (wanted["spread"] and wanted["spread"]["error"])


def test_the_other_forms_hold_the_same_images_and_classes(exports, load, context):
    wanted = np.concatenate(_images(context))[..., 0]
    folder = load(exports / "imagefolder")["train"]
    archive = load(exports / "webdataset")["train"]
    assert folder.features["label"].names == [f"{n:05d}_{name}" for n, name in enumerate(NAMES)]
    for rows, image, label in ((folder, "image", "label"), (archive, "png", "cls")):
        assert rows[label] == [class_id for class_id in range(10) for _ in range(3)]
        assert np.array_equal(np.stack([np.asarray(each) for each in rows[image]]), wanted)
    about = archive[19]["json"]
    assert (about["class"], about["prompt"], about["prototype"]) == ("six", "six", 1)
    assert not list((exports / "imagefolder").rglob("*.parquet"))


def test_the_card_says_what_hub_and_people_look_for(exports):
    card = (exports / "parquet" / "README.md").read_text(encoding="utf-8")
    _, front, text = card.split("---\n", 2)
    about = YAML(typ="safe").load(front)
    assert about["license"] == "cc-by-4.0"
    assert about["size_categories"] == ["n<1K"]
    assert about["task_categories"] == ["image-classification"]
    assert [each["config_name"] for each in about["configs"]] == [
        "default",
        "soft_labels",
        "scores",
    ]
    for wanted in (
        "30 images of 10 classes, 3 per class, 8 px",
        "![The images of tiny](contact_sheet.png)",
        "| random_real | 3 | soft | convnet3 |",
        "Made on: cpu, ",
        "## Checks that fail",
        "@inproceedings{su2024d4m",
    ):
        assert wanted in text
    named = {
        name for name in ("data", "scores.json", "lineage.json", "SHA256SUMS") if f"`{name}" in text
    }
    assert len(named) == 4
    assert "`soft_labels/`" not in (exports / "imagefolder" / "README.md").read_text()


@pytest.mark.filterwarnings(  # of libraries that mlcroissant stands on
    "ignore:ConjunctiveGraph is deprecated:DeprecationWarning",
    "ignore:The inplace keyword",
)
def test_croissant_is_valid_and_leads_to_the_records(exports, context):
    import mlcroissant  # which takes a second, in each worker that looks for tests

    found = mlcroissant.Dataset(jsonld=exports / "parquet" / "croissant.json")
    assert not found.metadata.ctx.issues.errors
    assert not found.metadata.ctx.issues.warnings
    records = list(found.records(record_set="default"))
    assert [int(record["default/label"]) for record in records] == [n // 3 for n in range(30)]
    last = np.asarray(records[-1]["default/image"])
    assert np.array_equal(last, _images(context)[9][2, ..., 0])
    first = next(iter(found.records(record_set="soft_labels")))
    logits = context.read("soft_labels", "epochs-000000")["logits"][0, 0]
    assert np.array_equal(np.asarray(first["soft_labels/logits"]), logits)


def test_a_reader_finds_recipe_lineage_and_checksums(exports, finished_once):
    folder = exports / "parquet"
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    listed = [line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()]
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {*listed, "SHA256SUMS"}
    again, own = load_recipe(folder / "recipe.yaml"), finished_once.pipeline().open_context().recipe
    assert again.settings == own.settings
    units = json.loads((folder / "lineage.json").read_text())
    digests = {f"{unit['artifact']}/{unit['unit']}": unit["digest"] for unit in units}
    made = {
        f"{stage}/{unit}": digest
        for stage, digest_of in finished_once.digests().items()
        for unit, digest in digest_of.items()
    }
    assert digests == {name: digest for name, digest in made.items() if name in digests}
    assert {name.partition("/")[0] for name in digests} >= {"real_images", "teacher", "generator"}
    for unit in units:
        assert all(digests[name] == digest for name, digest in unit["made_of"].items())


def test_the_test_images_are_those_that_students_are_scored_on(exports, load, context):
    rows = load(exports / "test")["test"]
    assert rows.features["label"].names == NAMES
    source = context.source
    wanted = [
        source.read_all("test", class_id, context.image_index("test", class_id))[..., 0]
        for class_id in range(10)
    ]
    assert rows["label"] == [class_id for class_id in range(10) for _ in wanted[class_id]]
    assert np.array_equal(
        np.stack([np.asarray(image) for image in rows["image"]]), np.concatenate(wanted)
    )


def test_pictures_in_parquet_are_the_files_that_are_stored(exports, context):
    stored = context.open_files("distilled_dataset", "distilled_dataset") / "images"
    rows = pq.read_table(exports / "parquet" / "data").to_pylist()
    for row, path in zip(rows, sorted(stored.rglob("*.png")), strict=True):
        assert row["image"]["bytes"] == path.read_bytes()
    with Image.open(exports / "parquet" / "contact_sheet.png") as sheet:
        assert sheet.size[0] > 100
