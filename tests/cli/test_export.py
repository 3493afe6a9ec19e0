"""Export: a folder of plain files."""

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from tests.cli.commands import call, fail, refused


def _digests_of_files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_export_writes_plain_files_that_agree_with_the_store(finished, tmp_path):
    lines = call(finished, "export", "tiny", tmp_path / "out")
    assert lines == [f"wrote {tmp_path / 'out'}"]
    context = finished.pipeline().open_context()
    stored = context.open_files("distilled_dataset", "distilled_dataset")
    exported, packed = map(_digests_of_files, (tmp_path / "out", stored))
    card, own = (files.pop(Path("README.md")).decode() for files in (exported, packed))
    assert exported == packed
    assert card.startswith(own)
    assert "## Checks that fail" in card.removeprefix(own)
    images = context.read("synthetic_images", "class-00006")["images"]
    for number, image in enumerate(images):
        with Image.open(tmp_path / "out" / "images" / "00006" / f"{number:05d}.png") as opened:
            assert np.array_equal(np.asarray(opened), image[..., 0])
    classes = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert classes[6] == {"class_id": 6, "name": "six", "prompt": "six"}
    assert len(json.loads((tmp_path / "out" / "scores.json").read_text())) == 10


def test_export_onto_something_that_exists_is_refused_and_leaves_it_alone(finished, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    _, errors = fail(finished, "export", "tiny", tmp_path / "out")
    assert f"error: wanted a folder that does not exist yet, found {tmp_path / 'out'}" in errors
    assert _digests_of_files(tmp_path / "out") == {Path("precious.txt"): b"mine"}


def test_a_damaged_data_set_is_not_exported(finished, tmp_path):
    folder = finished.pipeline().open_context().open_files("distilled_dataset", "distilled_dataset")
    shutil.rmtree(folder / "images" / "00003")
    error = refused(finished, "export", "tiny", tmp_path / "out")
    assert error == "recipe tiny has scores but no packed data set; run `d4m run tiny` first"
    assert not (tmp_path / "out").exists()
