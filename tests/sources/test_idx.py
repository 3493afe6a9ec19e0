"""MNIST's file format, written by hand, and the real Fashion-MNIST if it is installed."""

import gzip
import os
import re
import struct
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision
from PIL import Image

from d4m.errors import SourceError
from d4m.settings import MnistSettings
from d4m.sources import idx
from d4m.sources.idx import IdxSource

SYSTEM = Path("/usr/share/datasets/fashion-mnist")
FILES = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}
LABELS = {"train": np.array([3, 0, 9, 3, 3, 1, 9], np.uint8), "test": np.array([3, 3, 9], np.uint8)}
IMAGES = {
    split: np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 28, 28), np.uint8)
    for split, labels in LABELS.items()
}


def _idx(array, kind=0x08):
    """Return an IDX file's bytes: two zeros, number type, count of axes, their sizes, numbers."""
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return struct.pack(">HBB", 0, kind, array.ndim) + sizes + array.tobytes()


def _write(folder, split, what, content, *, packed):
    path = folder / f"{FILES[split, what]}{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def write_all(folder, *, packed):
    folder.mkdir(exist_ok=True)
    for split in ("train", "test"):
        _write(folder, split, "images", _idx(IMAGES[split]), packed=packed)
        _write(folder, split, "labels", _idx(LABELS[split]), packed=packed)
    return folder


def _open(folder, **settings):
    return IdxSource(MnistSettings(**{"source": "mnist"} | settings), folder)


def _read(source, split, class_id, **options):
    index = source.index(split, class_id)
    return np.concatenate(list(source.read_images(split, class_id, index, **options)))


@pytest.fixture(params=[True, False], ids=["packed", "plain"])
def folder(request, tmp_path):
    return write_all(tmp_path / "mnist", packed=request.param)


@pytest.fixture
def plain(tmp_path):
    return write_all(tmp_path / "mnist", packed=False)


def test_images_of_a_class_are_the_rows_with_its_label(folder):
    source = _open(folder)
    for split, rows in (("train", [0, 3, 4]), ("test", [0, 1])):
        assert np.array_equal(_read(source, split, 3), IMAGES[split][rows][..., None])
    assert np.array_equal(_read(source, "train", 9), IMAGES["train"][[2, 6]][..., None])
    assert (source.size_px, source.channels) == (28, 1)


def test_images_are_named_by_split_and_position_and_a_class_may_have_none(folder):
    source = _open(folder)
    assert source.index("train", 3).image_ids == ("train-00000", "train-00003", "train-00004")
    assert source.index("test", 9).image_ids == ("test-00002",)
    empty = source.index("test", 0)
    assert empty.image_ids == ()
    assert empty.content_digests.shape == (0, 32)
    assert [len(source.index("train", c).image_ids) for c in range(10)] == [
        *(1, 1, 0, 3, 0, 0, 0, 0, 0, 2)
    ]


def test_packed_and_plain_files_hold_the_same_images(tmp_path):
    packed, plain = (
        _open(write_all(tmp_path / str(packed), packed=packed)) for packed in (True, False)
    )
    for split in ("train", "test"):
        for class_id in (0, 3, 9):
            one, other = packed.index(split, class_id), plain.index(split, class_id)
            assert one.image_ids == other.image_ids
            assert np.array_equal(one.content_digests, other.content_digests)


def test_the_packed_file_is_read_where_both_are_there(plain):
    packed = _write(plain, "train", "images", _idx(255 - IMAGES["train"]), packed=True)
    assert np.array_equal(_read(_open(plain), "train", 1), 255 - IMAGES["train"][[5], ..., None])
    packed.unlink()
    assert np.array_equal(_read(_open(plain), "train", 1), IMAGES["train"][[5], ..., None])


def test_three_channels_repeat_the_grey_one(folder):
    images = _read(_open(folder, channels=3), "train", 0)
    assert images.shape == (1, 28, 28, 3)
    for channel in range(3):
        assert np.array_equal(images[..., channel], IMAGES["train"][[1]])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size_px", [14, 32])
def test_another_size_is_made_by_pillows_lanczos(folder, size_px, channels):
    by_settings = _read(_open(folder, size_px=size_px, channels=channels), "test", 9)
    by_call = _read(_open(folder, channels=channels), "test", 9, size_px=size_px)
    grey = Image.fromarray(IMAGES["test"][2])
    wanted = np.asarray(grey.resize((size_px, size_px), Image.Resampling.LANCZOS))
    assert by_settings.shape == by_call.shape == (1, size_px, size_px, channels)
    for channel in range(channels):
        assert np.array_equal(by_settings[0, ..., channel], wanted)
        assert np.array_equal(by_call[0, ..., channel], wanted)


def test_another_filter_resizes_and_is_part_of_the_decoding(folder):
    source = _open(folder, size_px=14, resampling="bilinear")
    wanted = Image.fromarray(IMAGES["test"][2]).resize((14, 14), Image.Resampling.BILINEAR)
    assert np.array_equal(_read(source, "test", 9)[0, ..., 0], np.asarray(wanted))
    assert dict(source.decoding) == {"channels": 1, "resampling": "bilinear"}
    assert dict(_open(folder, size_px=14).decoding) == {"channels": 1}


def test_a_class_has_a_fingerprint_of_its_own_that_lasts(folder):
    source = _open(folder)
    found = [source.fingerprint(split, c) for split in ("train", "test") for c in range(10)]
    assert len(set(found)) == 20
    again = _open(folder, size_px=14, channels=3)  # no index depends on these settings
    assert found == [again.fingerprint(s, c) for s in ("train", "test") for c in range(10)]
    other = _open(folder, source="fashion_mnist")  # its files have the same names and sizes
    assert not {other.fingerprint(s, c) for s in ("train", "test") for c in range(10)} & {*found}


@pytest.mark.parametrize("what", ["images", "labels"])
def test_a_fingerprint_changes_with_a_file_of_its_split_alone(plain, what):
    before = {split: _open(plain).fingerprint(split, 3) for split in ("train", "test")}
    path = plain / FILES["train", what]
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    touched = {split: _open(plain).fingerprint(split, 3) for split in ("train", "test")}
    assert touched["train"] != before["train"]
    assert touched["test"] == before["test"]
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(1, 1))
    grown = _open(plain).fingerprint("train", 3)
    path.write_bytes(path.read_bytes()[:-1])
    os.utime(path, ns=(1, 1))
    assert (
        len({before["train"], touched["train"], grown, _open(plain).fingerprint("train", 3)}) == 4
    )


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("mnist", {0: "zero", 9: "nine"}),
        ("fashion_mnist", {0: "T-shirt", 6: "shirt", 7: "sneaker", 9: "ankle boot"}),
    ],
)
def test_classes_are_named_in_the_order_of_the_published_labels(plain, source, names):
    table = _open(plain, source=source).class_table
    assert len(table) == 10
    assert {class_id: table.names[class_id] for class_id in names} == names


@pytest.mark.parametrize("name", FILES.values())
def test_a_missing_file_is_named_with_all_that_are_wanted(plain, name):
    (plain / name).unlink()
    message = (
        f"`dataset.path`: wanted the IDX files {', '.join(FILES.values())}, compressed (.gz) or "
        f"not, found no {name} in {plain}"
    )
    with pytest.raises(SourceError, match=f"^{re.escape(message)}$"):
        _open(plain).fingerprint("train", 0)


def _rgb():
    return np.zeros((7, 28, 28, 3), np.uint8)


SHORTER = "its header announces (7, 28, 28), and 5487 bytes follow"
BROKEN_IMAGES = {
    "empty": (b"", "unpack_from requires a buffer of at least 4 bytes"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "its first four bytes are 89504e47, not "),
    "of floats": (_idx(IMAGES["train"], kind=0x0D), "are 00000d03, not 00000803"),
    "of labels": (_idx(LABELS["train"]), "are 00000801, not 00000803"),
    "of colours": (_idx(_rgb()), "are 00000804, not 00000803"),
    "of another size": (
        _idx(np.zeros((7, 32, 32), np.uint8)),
        "its header announces (7, 32, 32), and 7168 bytes follow",
    ),
    "cut off in the header": (_idx(IMAGES["train"])[:10], "unpack_from requires a buffer"),
    "cut off behind the header": (
        _idx(IMAGES["train"])[:16],
        "its header announces (7, 28, 28), and 0 bytes follow",
    ),
    "cut off by a byte": (_idx(IMAGES["train"])[:-1], SHORTER),
    "a byte too long": (_idx(IMAGES["train"]) + b"\0", "and 5489 bytes follow"),
}


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "plain"])
@pytest.mark.parametrize("broken", BROKEN_IMAGES)
def test_a_file_that_is_not_what_its_header_should_say_is_named(plain, broken, packed):
    content, reason = BROKEN_IMAGES[broken]
    path = _write(plain, "train", "images", content, packed=packed)
    with pytest.raises(SourceError) as caught:
        _open(plain).index("train", 3)
    start = f"{path} is not an IDX file of bytes with items of shape (28, 28): "
    assert str(caught.value).startswith(start)
    assert reason in str(caught.value)


def test_labels_with_more_than_one_axis_are_refused(plain):
    path = _write(plain, "train", "labels", _idx(IMAGES["train"]), packed=False)
    message = (
        f"{path} is not an IDX file of bytes with items of shape (): its first four bytes are "
        f"00000803, not 00000801; replace it with the published file"
    )
    with pytest.raises(SourceError, match=f"^{re.escape(message)}$"):
        _open(plain).index("train", 3)


@pytest.mark.parametrize("kept", [0, 5, 12, 100, -1])
def test_a_packed_file_that_is_cut_off_is_named(plain, kept):
    path = plain / f"{FILES['train', 'images']}.gz"
    path.write_bytes(gzip.compress(_idx(IMAGES["train"]))[:kept])
    with pytest.raises(SourceError, match=rf"^{re.escape(str(path))} is not an IDX file of bytes"):
        _open(plain).index("train", 3)


@pytest.mark.parametrize("place", [0, 3, 10, 200, -8, -2])  # header, data, checksum, size
def test_a_packed_file_with_a_wrong_byte_is_named(plain, place):
    content = bytearray(gzip.compress(_idx(IMAGES["train"])))
    content[place] ^= 0xFF
    path = plain / f"{FILES['train', 'images']}.gz"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=rf"^{re.escape(str(path))} is not an IDX file of bytes"):
        _open(plain).index("train", 3)


@pytest.mark.parametrize(
    ("labels", "found"),
    [([3, 0, 9, 3, 3, 1, 10], "7 labels up to 10"), ([3, 0, 9], "3 labels up to 9")],
)
def test_labels_that_do_not_fit_the_images_are_refused(plain, labels, found):
    _write(plain, "train", "labels", _idx(np.array(labels, np.uint8)), packed=False)
    message = (
        f"wanted a label from 0 to 9 for each image, found 7 images in "
        f"{plain / FILES['train', 'images']} and {found} in {plain / FILES['train', 'labels']}; "
        f"replace both with the published files"
    )
    with pytest.raises(SourceError, match=f"^{re.escape(message)}$"):
        _open(plain).index("train", 3)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Hide the system's copy and the network, and use an empty cache folder."""

    def refuse(url, **_):
        asked.append(url)
        msg = "<urlopen error [Errno -2] Name or service not known>"
        raise URLError(msg)

    asked = list[str]()
    folders = {name: tmp_path / "nowhere" / name for name in ("mnist", "fashion_mnist")}
    monkeypatch.setattr(idx, "_SYSTEM_FOLDERS", folders)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", refuse)
    return asked


@pytest.mark.parametrize(
    ("source", "kind", "package"),
    [
        ("mnist", "MNIST", ""),
        ("fashion_mnist", "FashionMNIST", "; or install Debian's package dataset-fashion-mnist"),
    ],
)
def test_without_folder_and_network_the_message_names_the_searched_folders(
    offline, tmp_path, source, kind, package
):
    with pytest.raises(SourceError) as caught:
        _open(None, source=source).fingerprint("train", 0)
    message = str(caught.value)
    assert message.startswith(
        f"wanted the IDX files of {source}, found none in {tmp_path / 'nowhere' / source} or "
        f"{tmp_path / 'cache' / 'd4m' / kind / 'raw'}, and they could not be downloaded ("
    )
    assert "Name or service not known" in message
    assert message.endswith(f"); name their folder in `dataset.path`{package}")
    assert len(offline) > 0


@pytest.mark.usefixtures("offline")
def test_opening_a_source_reads_no_file(tmp_path):
    source = _open(None)
    assert (source.size_px, len(source.class_table)) == (28, 10)
    assert not (tmp_path / "cache").exists()


def test_the_cache_folder_is_used_without_the_network(offline, tmp_path):
    raw = tmp_path / "cache" / "d4m" / "MNIST" / "raw"
    raw.parent.mkdir(parents=True)
    write_all(raw, packed=False)
    assert _open(None).index("test", 9).image_ids == ("test-00002",)
    assert offline == []


def test_the_systems_folder_is_used_before_the_cache_folder(offline, tmp_path):
    system = tmp_path / "nowhere" / "mnist"
    system.parent.mkdir()
    write_all(system, packed=True)
    assert _open(None).index("test", 3).image_ids == ("test-00000", "test-00001")
    assert offline == []


if SYSTEM.is_dir():  # the test does not exist on a machine without the files

    def test_the_published_fashion_mnist():
        source = IdxSource(MnistSettings(source="fashion_mnist"), SYSTEM)
        counts = {
            split: [len(source.index(split, class_id).image_ids) for class_id in range(10)]
            for split in ("train", "test")
        }
        assert counts == {"train": [6000] * 10, "test": [1000] * 10}
        first = source.index("train", 9)  # an ankle boot opens the file
        assert first.image_ids[0] == "train-00000"
        [image, *_] = next(source.read_images("train", 9, first))
        assert int(image.sum()) == 76247
