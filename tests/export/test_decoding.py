"""An export's own reader decodes real images to the pixels that the pipeline makes, bit by bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from d4m.export.about import about_set
from d4m.export.contents import open_contents
from d4m.export.standalone.command import read_test
from d4m.export.standalone.decoding import decode_real, formats_to_try
from d4m.settings import CentreCropSettings, ImageFolderSettings
from d4m.sources.decode import decode_file, decode_raw
from d4m.sources.file_digests import FileDigests
from d4m.sources.image_folder import ImageFolderSource
from d4m.sources.image_formats import IMAGE_SUFFIXES, formats_of
from tests.export.odd_images import ODD

CROP = CentreCropSettings(resize_px=20, crop_px=16)
WAYS = [
    {},
    {"background": (12, 200, 99)},
    {"background": (12, 200, 99), "channels": 1},
    {"resize": "crop", "resampling": "bilinear"},
    {"resampling": "bicubic", "value_range": 4095},
    {"resize": "crop", "value_range": 511, "channels": 1},
    {"test_crop": CROP},
    {"jpeg": "scaled", "resize": "crop"},
    {"jpeg": "scaled", "test_crop": CROP},
]


@pytest.fixture(scope="module")
def about(finished_once):
    """Return a call that says how a folder of images is decoded, as an export would say it."""
    contents = open_contents(finished_once.pipeline())

    def about(way):
        way = dict(way)
        crop = way.pop("test_crop", None)
        made = {"source": "image_folder", "path": "/images", "size_px": 16, **way}
        dataset = ImageFolderSettings.model_validate(made)
        evaluation = contents.settings["evaluation"] | {"test_crop": crop and crop.model_dump()}
        dumped = {"dataset": dataset.model_dump(mode="json"), "evaluation": evaluation}
        changed = replace(contents, settings={**contents.settings, **dumped})
        found = about_set(changed)
        return dataset, found | {"size_px": 16, "channels": dataset.channels}

    return about


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_kind_of_image_becomes_the_pixels_that_the_pipeline_makes(about, way):
    dataset, found = about(way)
    white = way.get("value_range", 65_535)
    for name, content in ODD.items():
        wanted = decode_file(content, dataset, way.get("test_crop", 16), white=white)
        pixels = decode_real(content, found, name)
        assert np.array_equal(pixels.numpy(), wanted), name


@pytest.mark.parametrize("way", [WAYS[1], WAYS[3]], ids=str)
def test_a_folder_of_test_images_is_what_students_are_scored_on(about, way, tmp_path):
    dataset, found = about(way)
    for number, (name, content) in enumerate(ODD.items()):
        for split in ("train", "test"):
            file = tmp_path / split / found["classes"][number % 2] / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    torn = tmp_path / "test" / found["classes"][0] / "torn.jpg"
    torn.write_bytes(ODD["photograph.jpg"][:900])
    torn.with_name(".hidden").write_text("of a file manager")
    source = ImageFolderSource(dataset, tmp_path, digests=FileDigests(tmp_path / "cache"))
    indices = [source.index("test", class_id) for class_id in range(2)]
    wanted = [source.read_all("test", class_id, index) for class_id, index in enumerate(indices)]
    assert source.class_table.names == ("one", "zero")
    assert list(indices[1].unreadable) == ["zero/torn.jpg"]
    images, class_ids = read_test(tmp_path / "test", found)
    own = {name: number for number, name in enumerate(found["classes"])}
    for class_id, name in enumerate(source.class_table.names):
        assert np.array_equal(images[class_ids == own[name]].numpy(), wanted[class_id])


def test_files_that_are_no_images_are_counted_and_named(about, tmp_path, capsys):
    _, found = about({})
    folder = tmp_path / "zero"
    folder.mkdir()
    (folder / "a.png").write_bytes(ODD["icon.png"])
    (folder / "labels.csv").write_text("a,0")
    images, class_ids = read_test(tmp_path, found)
    assert (len(images), class_ids.tolist()) == (1, [0])
    assert capsys.readouterr().out == (
        f"left out 1 of 2 files, which are no usable images: {folder / 'labels.csv'}: "
        "not in a format of images that is read\n"
    )


def test_an_export_that_does_not_say_how_images_are_decoded_reads_them_as_before(
    about, tmp_path, capsys
):
    """Exports of earlier releases have no `real_images` in their distilled.json."""
    _, found = about(WAYS[1])
    del found["real_images"]
    (tmp_path / "zero").mkdir()
    (tmp_path / "zero" / "a.png").write_bytes(ODD["right_size.png"])
    images, _ = read_test(tmp_path, found)
    wanted = decode_raw(images[0].numpy().tobytes(), (16, 16, 3), 16)
    assert np.array_equal(images[0].numpy(), wanted)
    assert capsys.readouterr().out.startswith("this export does not say how its recipe decodes ")


def test_test_images_that_d4m_has_cropped_are_not_cropped_again(about, exports):
    _, found = about({"test_crop": CentreCropSettings(resize_px=16, crop_px=8)})
    _, plain = about({})
    sizes = {"size_px": 8, "channels": 1}
    again, once = (read_test(exports / "test", each | sizes)[0] for each in (found, plain))
    assert torch.equal(again, once)


def test_files_are_tried_as_the_formats_that_the_pipeline_tries():
    for name in ("", "a", "a.PNG", *(f"a{suffix}" for suffix in IMAGE_SUFFIXES)):
        assert formats_to_try(name) == formats_of(name), name


def test_white_of_all_training_images_is_that_which_units_were_made_with(finished_once):
    contents = open_contents(finished_once.pipeline())
    made = {"source": "image_folder", "path": "/images", "value_range": "auto"}
    dumped = ImageFolderSettings.model_validate(made).model_dump(mode="json")
    contents = replace(contents, settings={**contents.settings, "dataset": dumped})
    assert about_set(contents)["real_images"]["white"] == 65_535
    teacher = next(each for each in contents.origin.walk() if each.asset == "teacher")
    decoding = {"settings": {**teacher.reference.inputs["settings"], "decoding": {"white": 4095}}}
    reference = replace(teacher.reference, inputs={**teacher.reference.inputs, **decoding})
    contents = replace(contents)
    contents.__dict__["origin"] = replace(teacher, reference=reference)
    assert about_set(contents)["real_images"]["white"] == 4095
