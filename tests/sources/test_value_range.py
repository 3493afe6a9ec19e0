"""Images of 16 bits: the level that becomes white, chosen, found or left at the full range."""

import struct
import zlib

import numpy as np
import pytest

from d4m.settings import HuggingFaceSettings
from d4m.sources import file_listing
from tests.sources.folders import fill, open_folder, write_levels


def _levels(maximum):
    return np.linspace(0, maximum, 64).astype(np.uint16).reshape(8, 8)


def _read(source, name):
    for split in source.splits:
        index = source.index(split, 0)
        if name in index.image_ids:
            return source.read_all(split, 0, index)[index.image_ids.index(name)][..., 0]
    return pytest.fail(f"{name} is in no split")


@pytest.fixture
def twelve_bits(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            for number in range(3):
                path = tmp_path / "x" / split / name / f"{number}.png"
                write_levels(path, _levels(4000 + number))
    return tmp_path / "x"


def test_the_full_range_is_the_default_and_is_in_no_key(twelve_bits):
    source = open_folder(twelve_bits)
    assert "white" not in source.decoding
    assert open_folder(twelve_bits, value_range=65535).decoding == source.decoding
    assert np.array_equal(_read(source, "a/0.png"), _levels(4000) >> 8)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_auto_finds_the_bits_that_the_training_images_use(tmp_path, suffix):
    for name in ("a", "b"):
        for split in ("train", "test"):
            write_levels(tmp_path / "x" / split / name / f"0.{suffix}", _levels(4000))
    source = open_folder(tmp_path / "x", value_range="auto")
    assert source.decoding["white"] == 4095
    expected = np.rint(_levels(4000) * (255 / 4095))
    assert np.array_equal(_read(source, f"a/0.{suffix}"), expected)
    assert "white is level 4095 of 16 bits" in source.describe()


@pytest.mark.parametrize(
    ("highest", "white"), [(900, 1023), (1024, 2047), (70, 255), (16383, 16383)]
)
def test_auto_rounds_up_to_whole_bits(tmp_path, highest, white):
    for name in ("a", "b"):
        write_levels(tmp_path / "x" / "train" / name / "0.png", _levels(highest))
        write_levels(tmp_path / "x" / "test" / name / "0.png", _levels(60000))  # has no say
    assert open_folder(tmp_path / "x", value_range="auto").decoding["white"] == white


def test_an_explicit_level_is_white_and_all_above_it(twelve_bits):
    source = open_folder(twelve_bits, value_range=2000)
    assert source.decoding["white"] == 2000
    expected = np.rint(np.minimum(_levels(4001), 2000) * (255 / 2000))
    assert np.array_equal(_read(source, "a/1.png"), expected)


def test_images_of_8_bits_are_as_they_were(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            fill(tmp_path / "x" / split / name, 2, start=7)
    plain, auto = (open_folder(tmp_path / "x", value_range=r) for r in ("full", "auto"))
    assert auto.decoding == plain.decoding  # no image has 16 bits
    assert np.array_equal(
        _read(open_folder(tmp_path / "x", value_range=15), "a/007.png"), [[7] * 8] * 8
    )


def _colour_png(path, levels):
    """Write 8 x 8 pixels of one colour with 16 bits per channel, which Pillow cannot write."""

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    row = b"\0" + struct.pack(">3H", *levels) * 8
    parts = [
        chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)),
        chunk(b"IDAT", zlib.compress(row * 8)),
        chunk(b"IEND", b""),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_colours_of_16_bits_are_scaled_as_finely_as_pillow_reads_them(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            _colour_png(tmp_path / "x" / split / name / "0.png", (4095, 2048, 0))
    source = open_folder(tmp_path / "x", value_range="auto", channels=3)
    assert source.decoding["white"] == 4095
    pixels = source.read_all("train", 0, source.index("train", 0))
    assert pixels[0, 0, 0].tolist() == [255, 136, 0]  # 8 of 15 steps


def test_auto_looks_at_files_again_only_if_they_changed(twelve_bits, monkeypatch):
    monkeypatch.setattr(file_listing, "SETTLED_NS", 0)
    assert open_folder(twelve_bits, value_range="auto").decoding["white"] == 4095
    stored = list((twelve_bits.parent / ".cache-x" / "file_levels").iterdir())
    assert [file.read_text() for file in stored] == ["4002", "4002"]
    write_levels(twelve_bits / "train" / "b" / "9.png", _levels(9000))
    assert open_folder(twelve_bits, value_range="auto").decoding["white"] == 16383


def test_a_broken_file_does_not_stop_the_search(twelve_bits):
    (twelve_bits / "train" / "a" / "broken.png").write_bytes(b"no image")
    assert open_folder(twelve_bits, value_range="auto").decoding["white"] == 4095


def test_auto_is_for_folders(tmp_path):
    with pytest.raises(ValueError, match="`auto` needs an image folder"):
        HuggingFaceSettings(source="huggingface", path=str(tmp_path), value_range="auto")
