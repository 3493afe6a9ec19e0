"""Images at an address in an object store are those of the same files in a folder."""

import pickle
import re
import shutil
import sys

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, disable_progress_bars
from datasets import Image as ImageColumn

from d4m.errors import D4MError, RecipeError, SourceError
from d4m.recipe.recipe import load_recipe
from d4m.sources.registry import open_source
from d4m.stages.materials import Materials
from tests.contracts.test_source_contract import encode_png
from tests.object_stores import Files, environment, make_bucket, moto
from tests.sources.folders import fill
from tests.sources.test_idx import FILES, LABELS, write_all


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with moto() as address, environment(address, tmp_path_factory.mktemp("unused")):
        make_bucket(address)
        yield address


@pytest.fixture
def files(server, tmp_path, monkeypatch):
    monkeypatch.setenv("D4M_CACHE", str(tmp_path / "cache"))
    found = Files(server, f"{tmp_path.name}/pictures")
    yield found
    found.close()


@pytest.fixture
def pictures(tmp_path):
    """Fill a folder with images, with two that are damaged and a hidden file."""
    root = tmp_path / "pictures"
    for number, name in enumerate(("ant", "bée é", "cow")):
        fill(root / name, 8, start=10 * number)
    (root / "ant" / "broken.png").write_bytes(b"no image")
    (root / "cow" / "deep").mkdir()
    (root / "cow" / "deep" / "empty.jpg").touch()
    (root / "cow" / ".hidden").write_bytes(b"x")
    return root


def _open(folder, path, text=""):
    (folder / "own.yaml").write_text(
        f"dataset: {{source: image_folder, path: {path}, size_px: 8, channels: 1{text}}}\n"
    )
    return open_source(load_recipe(folder / "own.yaml"), folder / "remembered")


def _indexes(source):
    found = {
        (split, class_id): source.index(split, class_id)
        for split in source.splits
        for class_id in range(len(source.class_table))
    }
    return {
        key: (index.image_ids, index.content_digests.tobytes(), index.unreadable)
        for key, index in found.items()
    }


def _fingerprints(source):
    return [source.fingerprint(split, n) for split in source.splits for n in range(3)]


def test_a_folder_of_images_is_the_same_in_a_bucket(files, pictures, tmp_path):
    files.upload(pictures)
    local, far = _open(tmp_path, pictures), _open(tmp_path, files.address)
    assert far.class_table == local.class_table
    assert far.decoding == local.decoding
    assert far.describe() == local.describe()
    indexes = _indexes(local)
    assert _indexes(far) == indexes
    assert indexes["train", 0][2] | indexes["test", 0][2]  # what is damaged is left out there too
    index = far.index("train", 1)
    assert np.array_equal(far.read_all("train", 1, index), local.read_all("train", 1, index))


def test_an_index_is_found_on_another_machine_until_an_image_changes(
    files, pictures, tmp_path, monkeypatch
):
    files.upload(pictures)
    before = _fingerprints(_open(tmp_path, files.address))
    monkeypatch.setenv("D4M_CACHE", str(tmp_path / "another machine"))
    assert _fingerprints(_open(tmp_path, files.address)) == before
    files.put("cow/000.png", b"no image")
    after = _fingerprints(_open(tmp_path, files.address))
    assert [old == new for old, new in zip(before, after, strict=True)].count(False) == 1


def test_splits_may_be_below_the_address(files, tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            fill(tmp_path / "split" / split / name, 3)
    files.upload(tmp_path / "split")
    assert _open(tmp_path, f"{files.address}/").describe() == "train: train/; test: test/"
    chosen = _open(tmp_path, files.address, ", splits: {train: train, test: test}")
    assert chosen.count("test", 1) == 3


def test_another_process_opens_a_copy_of_its_own(files, pictures, tmp_path, monkeypatch):
    files.upload(pictures)
    _open(tmp_path, files.address)
    materials = Materials(load_recipe(tmp_path / "own.yaml"), tmp_path / "remembered", "cpu")
    before = _indexes(materials.source)
    sent = pickle.dumps(materials)
    shutil.rmtree(tmp_path / "cache" / "datasets")
    monkeypatch.setenv("D4M_CACHE", str(tmp_path / "another machine"))
    assert _indexes(pickle.loads(sent).source) == before  # noqa: S301


def test_a_saved_data_set_is_the_same_in_a_bucket(files, tmp_path, monkeypatch):
    disable_progress_bars()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "library_cache")
    images = [encode_png(np.full((8, 8), level, np.uint8)) for level in range(12)]
    rows = {
        "image": [{"bytes": each, "path": None} for each in images],
        "label": [row % 2 for row in range(12)],
    }
    features = Features({"image": ImageColumn(), "label": ClassLabel(names=["b", "a"])})
    made = Dataset.from_dict(rows, features=features)
    saved = DatasetDict({"train": made, "test": made})
    saved.save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "tables").mkdir()
    for split, each in saved.items():
        each.to_parquet(str(tmp_path / "tables" / f"{split}.parquet"))
    for kind in ("saved", "tables"):
        there = Files(files.server, f"{tmp_path.name}/{kind}")
        there.upload(tmp_path / kind)
        sources = list[object]()
        for path in (tmp_path / kind, there.address):
            (tmp_path / "own.yaml").write_text(
                f"dataset: {{source: huggingface, path: {path}, size_px: 8, channels: 1}}\n"
            )
            sources.append(_indexes(open_source(load_recipe(tmp_path / "own.yaml"), tmp_path)))
        assert sources[0] == sources[1]
        there.close()


def test_published_files_are_read_from_a_bucket(files, tmp_path):
    files.upload(write_all(tmp_path / "mnist", packed=True))
    (tmp_path / "own.yaml").write_text(f"dataset: {{source: mnist, path: '{files.address}'}}\n")
    source = open_source(load_recipe(tmp_path / "own.yaml"), tmp_path)
    assert source.count("train", 3) == (LABELS["train"] == 3).sum()
    files.remove(f"{FILES['test', 'labels']}.gz")
    with pytest.raises(SourceError, match=rf"found no t10k-labels-idx1-ubyte in {files.address}$"):
        open_source(load_recipe(tmp_path / "own.yaml"), tmp_path)


def test_messages_about_the_place_name_the_address(files, tmp_path):
    fill(tmp_path / "pictures" / "only one class", 3)
    files.upload(tmp_path / "pictures")
    with pytest.raises(SourceError, match=r"wanted at least 2 classes, found 1 in ") as caught:
        _open(tmp_path, files.address)
    assert files.address in str(caught.value)
    assert str(tmp_path / "cache") not in str(caught.value)
    with pytest.raises(
        SourceError, match=rf"`dataset.path`: found no object below {files.address}/x"
    ):
        _open(tmp_path, f"{files.address}/x")


@pytest.mark.parametrize(
    "path", ["http://example.org/birds", "s3:///birds", "s3://bucket/a/../b", "s3://bucket/a#b"]
)
def test_addresses_of_another_kind_are_refused_with_the_line(tmp_path, path):
    for source in ("image_folder", "huggingface", "mnist", "cifar10"):
        file = tmp_path / "own.yaml"
        file.write_text(f"dataset:\n  source: {source}\n  path: {path}\n")
        message = (
            f"{file}:3: dataset.path: wanted the path of a folder, or s3://bucket/prefix, "
            f"gs://bucket/prefix or az://container/prefix; found '{path}'"
        )
        with pytest.raises(RecipeError, match=f"^{re.escape(message)}$"):
            load_recipe(file)


def test_a_path_of_no_text_is_refused_once(tmp_path):
    (tmp_path / "own.yaml").write_text("dataset: {source: image_folder, path: 5}\n")
    with pytest.raises(RecipeError, match=r"dataset.path: wanted the path of .*; found 5$"):
        load_recipe(tmp_path / "own.yaml")


def test_without_obstore_the_message_says_what_to_install(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("d4m.store.")]:
        if name.rpartition(".")[2] in {"mirror", "object_listing", "object_server"}:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(D4MError, match=r"dataset.path.*needs obstore, which is .*'d4m\[objects\]'"):
        _open(tmp_path, "s3://bucket/birds")
