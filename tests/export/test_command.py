"""Export: what is refused, and what a version or smaller labels change."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import d4m.export.folder
import d4m.export.new_folder
from d4m.errors import D4MError
from d4m.export.contents import open_contents
from d4m.export.folder import write_export
from d4m.export.images import _folder_name
from d4m.export.standalone.dataset import DistilledDataset
from d4m.settings import SoftLabelSettings
from d4m.training.label_formats import pack_logits, unpack_logits
from tests.cli.commands import call, fail, refused


def _files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("argument", ["out", "--test-images"])
def test_export_onto_something_that_exists_is_refused_and_leaves_it_alone(
    finished, tmp_path, argument
):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    other = [tmp_path / "other", argument] if argument.startswith("-") else []
    _, errors = fail(finished, "export", "tiny", *other, tmp_path / "out")
    assert f"error: wanted a folder that does not exist yet, found {tmp_path / 'out'}" in errors
    assert _files(tmp_path / "out") == {Path("precious.txt"): b"mine"}
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("folder", "inner"), [("out", "out"), ("out", "out/in"), ("out/in", "out")]
)
def test_an_export_and_its_test_images_are_two_folders(finished_once, tmp_path, folder, inner):
    places = [tmp_path / folder, "--test-images", tmp_path / inner]
    error = refused(finished_once, "export", "tiny", *places)
    assert error.startswith("wanted two folders apart from one another")
    assert not (tmp_path / "out").exists()


def test_the_one_name_that_load_dataset_cannot_read_is_refused(finished_once, tmp_path):
    """A folder `distilled` with a file distilled.py looks like a loading script."""
    for command, place in (("export", tmp_path / "distilled"), ("push", "someone/distilled")):
        error = refused(finished_once, command, "tiny", place)
        assert error.startswith("wanted another name than distilled: ")
    assert not list(tmp_path.iterdir())


def test_a_damaged_data_set_is_not_exported(finished, tmp_path):
    folder = finished.pipeline().open_context().open_files("distilled_dataset", "distilled_dataset")
    shutil.rmtree(folder / "images" / "00003")
    error = refused(finished, "export", "tiny", tmp_path / "out")
    assert error == "recipe tiny has scores but no packed data set; run `d4m run tiny` first"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("module", "part"),
    [(d4m.export.folder, "write_label_table"), (d4m.export.new_folder, "make_durable")],
)
def test_an_export_that_fails_leaves_nothing(finished_once, tmp_path, monkeypatch, module, part):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, part, full)
    error = refused(finished_once, "export", "tiny", tmp_path / "out")
    assert error == f"cannot write {tmp_path / 'out'}: [Errno 28] No space left on device"
    assert not list(tmp_path.iterdir())


def test_two_exports_of_a_data_set_are_the_same_files(finished_once, tmp_path, exports):
    call(finished_once, "export", "tiny", tmp_path / "out", "--license", "cc-by-4.0")
    assert _files(tmp_path / "out") == _files(exports / "parquet")


def test_a_version_is_exported_as_it_was(finished_once, tmp_path, exports):
    call(finished_once, "export", "tiny", tmp_path / "out", "--version", "current")
    found, wanted = _files(tmp_path / "out"), _files(exports / "parquet")
    assert found.keys() == wanted.keys()
    own = {"README.md", "SHA256SUMS", "croissant.json", "scores.json"}  # checks and curves differ
    for name, content in wanted.items():
        if name.name not in own and name.parts[0] != "scores":
            assert found[name] == content, name
    error = refused(
        finished_once,
        "export",
        "tiny",
        tmp_path / "more",
        "--version",
        "current",
        "--test-images",
        tmp_path / "test",
    )
    assert error.startswith("test images are those of the present recipe")


def test_labels_are_packed_again_and_pruned_where_asked(finished_once, tmp_path, exports):
    more = ("--labels", "uint8", "--epochs", 2)
    call(finished_once, "export", "tiny", tmp_path / "out", *more)
    small, whole = DistilledDataset(tmp_path / "out"), DistilledDataset(exports / "parquet")
    assert (small.epochs, whole.epochs) == (2, 4)
    for epoch in range(4):
        pixels, logits = small.views(epoch)
        packed = pack_logits(whole.logits(epoch % 2).numpy(), SoftLabelSettings(format="uint8"))
        assert np.array_equal(logits.numpy(), unpack_logits(packed, 10))
        assert np.array_equal(pixels.numpy(), whole.views(epoch % 2)[0].numpy())
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "a class is `gaps * scale / 255` below the highest" in card


def test_test_images_do_not_stay_where_the_set_itself_cannot_be_written(finished_once, tmp_path):
    (tmp_path / "file").write_text("no folder")
    out, images = tmp_path / "file" / "out", tmp_path / "images"
    refused(finished_once, "export", "tiny", out, "--test-images", images)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_class_of_a_long_name_has_a_folder_that_file_systems_take():
    assert _folder_name(3, "é" * 300) == "00003_" + "é" * 124
    assert _folder_name(3, "a/b...") == "00003_a_b"


def test_a_set_without_soft_labels_says_so(finished_once, tmp_path):
    contents = open_contents(finished_once.pipeline())
    ignored = shutil.ignore_patterns("soft_labels.zarr", "views.zarr")
    shutil.copytree(contents.folder, tmp_path / "packed", ignore=ignored)
    online = replace(contents, folder=tmp_path / "packed")  # as with `mode: online`
    with pytest.raises(D4MError, match="wanted labels of format float16, found none"):
        online.with_labels("uint8", None)
    write_export(online, tmp_path / "out")
    assert not (tmp_path / "out" / "soft_labels").exists()
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "There are no soft labels here" in card
    assert "config_name: soft_labels" not in card
    with pytest.raises(ValueError, match="has no soft labels"):
        DistilledDataset(tmp_path / "out").views(0)


def test_labels_that_are_small_already_are_not_packed_into_another_format(finished_once):
    contents = open_contents(finished_once.pipeline())
    labels = {**contents.settings["soft_labels"], "format": "top_k"}
    small = replace(contents, settings={**contents.settings, "soft_labels": labels})
    with pytest.raises(D4MError, match="wanted labels of format float16, found format top_k"):
        small.with_labels("uint8", None)
    assert small.with_labels(None, None) is small
    assert small.with_labels("top_k", 3).labels.labelled == 3
